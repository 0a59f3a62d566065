"""DeepSpeed's configuration, and what enters the engine."""

import pytest
import torch
from clim_train.config import TrainConfig
from clim_train.engine.engine import deepspeed_config
from clim_train.engine.module import EngineModule, replace_parameters, trainable_tree
from clim_train.methods.clim import ClimTask
from clim_train.methods.pairs import PairDataConfig
from clim_train.options.device import choose_device
from clim_train.options.sections import EngineConfig, OptimConfig
from tiny_training import EVA, VIT, tiny_model, unit
from torch import nn


def test_configuration_says_what_the_run_says():
    config = TrainConfig(
        data=PairDataConfig(batch_size=5),
        optim=OptimConfig(clip_norm=0.5),
        engine=EngineConfig(
            zero_stage=3,
            precision="bf16",
            accumulation=4,
            offload="optimizer_and_parameters",
            whole_below=7,
        ),
    )
    ours = deepspeed_config(config)
    assert ours["train_micro_batch_size_per_gpu"] == 5
    assert ours["gradient_accumulation_steps"] == 4
    assert ours["gradient_clipping"] == 0.5
    assert ours["zero_optimization"]["stage"] == 3
    assert ours["zero_optimization"]["stage3_param_persistence_threshold"] == 7
    assert ours["zero_optimization"]["offload_optimizer"] == {"device": "cpu"}
    assert ours["zero_optimization"]["offload_param"] == {"device": "cpu"}
    assert (ours["bf16"]["enabled"], ours["fp16"]["enabled"]) == (True, False)
    assert ours["checkpoint"] == {"load_universal": False}
    assert deepspeed_config(config) == ours
    assert deepspeed_config(config, universal=True)["checkpoint"] == {"load_universal": True}


def test_no_clipping_means_none():
    # DeepSpeed clips at 1.0 when it is not told otherwise.
    assert (
        deepspeed_config(TrainConfig(engine=EngineConfig(zero_stage=1)))["gradient_clipping"] == 0.0
    )


@pytest.mark.parametrize(
    ("precision", "bf16", "fp16"),
    [
        ("fp32", False, False),
        ("amp_bf16", False, False),
        ("bf16", True, False),
        ("fp16", False, True),
    ],
)
def test_precision_reaches_deepspeed(precision, bf16, fp16):
    ours = deepspeed_config(TrainConfig(engine=EngineConfig(zero_stage=1, precision=precision)))
    assert (ours["bf16"]["enabled"], ours["fp16"]["enabled"]) == (bf16, fp16)


def test_fp16_on_the_cpu_is_refused():
    config = TrainConfig(engine=EngineConfig(precision="fp16", device="cpu"))
    with pytest.raises(ValueError, match="fp16' needs a GPU"):
        choose_device(config.engine)


def test_missing_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="sees no GPU"):
        choose_device(EngineConfig(device="cuda"))
    assert choose_device(EngineConfig()).type == "cpu"


@pytest.mark.parametrize("name", [VIT, EVA])
def test_only_what_trains_enters_the_engine_under_its_own_name(name):
    model = tiny_model(name, unlocked_blocks=1)
    model.freeze(1, path="dense")
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    inside = dict(trainable_tree(model).named_parameters())
    assert inside.keys() == trained.keys()
    assert all(inside[n] is p for n, p in trained.items())


def test_frozen_modules_stay_in_evaluation_mode():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.frozen, self.trained = nn.Linear(2, 2), nn.Linear(2, 2)
            self.frozen.requires_grad_(False)

    model = Frozen().eval()
    trainable_tree(model).train()
    assert (model.frozen.training, model.trained.training) == (False, True)


def test_parameters_the_task_does_not_name_are_frozen():
    task = ClimTask(tiny_model())
    names = dict(task.trainable_parameters())
    names.pop("clip.logit_scale")
    task.trainable_parameters = lambda: names
    module = EngineModule(task, device_type="cpu")
    assert "model.clip.logit_scale" not in dict(module.named_parameters())
    assert not task.model.logit_scale.requires_grad


def test_forward_gives_loss_and_detached_scalars():
    module = EngineModule(ClimTask(tiny_model()), device_type="cpu")
    loss, scalars = module(unit(0))
    assert loss.requires_grad
    assert scalars.keys() == {"loss", "logit_scale"}
    assert not any(value.requires_grad for value in scalars.values())


def test_forward_without_loss_is_an_error():
    task = ClimTask(tiny_model())
    task.loss = lambda batch: {"los": torch.zeros(())}
    with pytest.raises(ValueError, match="must have a 'loss'"):
        EngineModule(task, device_type="cpu")(unit(0))


def test_replaced_parameters_keep_name_and_requires_grad():
    model = tiny_model()
    old = model.logit_scale
    replace_parameters(model, {"clip.logit_scale": torch.tensor([3.0])})
    assert model.logit_scale is not old
    assert model.logit_scale.shape == (1,)
    assert model.logit_scale.requires_grad


def test_tied_parameters_stay_tied():
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    second.weight = first.weight
    replace_parameters(nn.ModuleList([first, second]), {"0.weight": torch.ones(2, 2)})
    assert second.weight is first.weight
    assert first.weight.tolist() == [[1, 1], [1, 1]]
