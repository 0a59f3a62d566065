"""Training in one process: every ZeRO stage, exact resume, the run folder, several trainers after
one another."""

import json
import math

import open_clip
import pytest
import torch
from clim_models import create_model
from clim_train.config import TrainConfig
from clim_train.engine.optim import build_optimizer
from clim_train.methods.clim import ClimTask
from clim_train.run.metrics import read_metrics
from clim_train.schedule import learning_rate
from clim_train.trainer import Trainer
from safetensors.torch import load_file
from tiny_training import (
    EVA,
    VIT,
    NoiseLoader,
    fit_until,
    tiny_config,
    tiny_model,
    tiny_trainer,
    unit,
    with_engine,
    with_run,
)
from tolerance import SAME_LOSSES, float32_sum


def losses(folder):
    return [line["loss"] for line in read_metrics(folder) if "loss" in line]


def reference_losses(steps=6, name=VIT):
    """The same training without DeepSpeed: plain AdamW, clipping and schedule."""
    config = tiny_config("unused", steps=steps)
    task, loader, seen = ClimTask(tiny_model(name)), NoiseLoader(), []
    optimizer = build_optimizer(
        task.trainable_parameters(), config.optim, bounds=task.parameter_bounds
    )
    while len(seen) < steps:
        for batch in loader:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(len(seen), steps, config.optim, config.schedule)
            loss = task.loss(batch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(
                task.trainable_parameters().values(), config.optim.clip_norm
            )
            optimizer.step()
            seen.append(loss.item())
    return seen[:steps]


@pytest.fixture(scope="module")
def expected():
    return {name: reference_losses(name=name) for name in (VIT, EVA)}


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("name", [VIT, EVA])
def test_every_stage_trains_as_plain_pytorch(tmp_path, expected, name, stage):
    tiny_trainer(tiny_config(tmp_path / "run", zero_stage=stage), model=tiny_model(name)).fit()
    assert losses(tmp_path / "run") == pytest.approx(expected[name], rel=SAME_LOSSES)
    assert expected[name][-1] < expected[name][0]


@pytest.mark.parametrize("stage", [1, 3])
@pytest.mark.parametrize("precision", ["amp_bf16", "bf16"])
def test_16_bits_stay_close_to_float32(tmp_path, expected, stage, precision):
    model = tiny_model()
    tiny_trainer(
        tiny_config(tmp_path / "run", zero_stage=stage, precision=precision), model=model
    ).fit()
    assert losses(tmp_path / "run") == pytest.approx(expected[VIT], rel=3e-2)
    assert model.dtype == torch.float32


@pytest.mark.parametrize(("stage", "offload"), [(2, "optimizer"), (3, "optimizer_and_parameters")])
def test_offload_changes_nothing(tmp_path, expected, stage, offload):
    tiny_trainer(tiny_config(tmp_path / "run", zero_stage=stage, offload=offload)).fit()
    assert losses(tmp_path / "run") == pytest.approx(expected[VIT], rel=SAME_LOSSES)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resume_repeats_the_uninterrupted_run(tmp_path, stage, precision):
    if (stage, precision) == (0, "bf16"):
        pytest.skip("rejected by the configuration")
    config = tiny_config(tmp_path / "whole", zero_stage=stage, precision=precision)
    tiny_trainer(config).fit()
    parts = with_run(config, folder=str(tmp_path / "parts"))
    fit_until(tiny_trainer(parts), 4)
    assert len(losses(tmp_path / "parts")) == 4
    trainer = tiny_trainer(parts, resume=True)
    assert trainer.step == 4
    trainer.fit()
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    whole, again = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[k], again[k]) for k in whole)


def test_one_process_runs_without_sharding_and_its_folder_says_so(tmp_path):
    """The losses are those of stage 1; a run that was saved at stage 1 resumes there."""
    chosen = tiny_config(tmp_path / "chosen", zero_stage=None)
    tiny_trainer(chosen).fit()
    assert TrainConfig.load(tmp_path / "chosen").engine.zero_stage == 0

    named = tiny_config(tmp_path / "named", zero_stage=1)
    fit_until(tiny_trainer(named), 4)
    trainer = tiny_trainer(TrainConfig.load(tmp_path / "named"), resume=True)
    assert trainer.engine.config.engine.zero_stage == 1
    trainer.fit()
    # Both sum the same float32 numbers; the norm for clipping is summed in another order, once in
    # each of six steps.
    assert losses(tmp_path / "chosen") == pytest.approx(losses(tmp_path / "named"), rel=SAME_LOSSES)


def test_resume_within_an_epoch_and_an_accumulation_window_of_the_log(tmp_path):
    """Three batches per epoch, two per step, a line every four steps: nothing falls together."""
    config = with_run(
        tiny_config(tmp_path / "whole", steps=8, accumulation=2), log_every=4, save_every=3
    )
    tiny_trainer(config).fit()
    parts = with_run(config, folder=str(tmp_path / "parts"))
    fit_until(tiny_trainer(parts), 3)
    tiny_trainer(parts, resume=True).fit()
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == 2


def test_accumulation_averages_micro_batches(tmp_path):
    """Both losses are of the start weights. An epoch of three batches has one step of two."""
    trainer = tiny_trainer(tiny_config(tmp_path / "run", steps=1, accumulation=2))
    task, loader = trainer.task, trainer.loader
    start = [task.loss(batch)["loss"].item() for batch in loader]
    loader.load_state_dict({"epoch": 0, "position": 0})
    trainer.fit()
    assert losses(tmp_path / "run") == pytest.approx([sum(start[:2]) / 2], rel=SAME_LOSSES)
    assert read_metrics(tmp_path / "run")[-1]["epoch"] == 1.0


def test_run_folder(tmp_path):
    folder = tmp_path / "run"
    config = with_run(tiny_config(folder), tensorboard=True, bar=True)
    model = tiny_model()
    start = {k: v.clone() for k, v in model.clip.state_dict().items()}
    trainer = tiny_trainer(config, model=model)
    trainer.fit()
    assert TrainConfig.load(folder) == config
    assert json.loads((folder / "versions.json").read_text())["processes"] == 1
    assert list((folder / "tensorboard").glob("events*"))
    assert sorted(p.name for p in (folder / "checkpoints").glob("step-*")) == [
        "step-00000004",
        "step-00000006",
    ]
    lines = read_metrics(folder)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(line["samples_per_s"] > 0 and line["lr"] >= 0 for line in lines)
    assert lines[-1]["epoch"] == 2.0
    # The export is interpolated, the model that stays in the process is not.
    exported = load_file(folder / "model" / "model.safetensors")
    trained = model.clip.state_dict()
    moved = [k for k in start if not torch.equal(start[k], trained[k])]
    assert {f"clip.{k}" for k in moved} <= set(trainer.task.trainable_parameters())
    assert len(moved) > 10
    for key, value in exported.items():
        torch.testing.assert_close(value, 0.7 * trained[key] + 0.3 * start[key])
    # What moved is there as it was and as it became, under the same names.
    before, after = (load_file(folder / f"{name}.safetensors") for name in ("start", "trained"))
    assert before.keys() == after.keys() == set(trainer.task.trainable_parameters())
    for key, value in after.items():
        assert torch.equal(value, trained[key.removeprefix("clip.")])
        assert torch.equal(before[key], start[key.removeprefix("clip.")])


def test_export_loads_in_create_model_and_in_plain_open_clip(tmp_path):
    tiny_trainer(tiny_config(tmp_path / "run", steps=2, zero_stage=3)).fit()
    folder = tmp_path / "run" / "model"
    ours = create_model(VIT, pretrained=folder)
    plain = open_clip.create_model(f"local-dir:{folder}").eval()
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            ours.encode_image(images), plain.encode_image(images, normalize=True)
        )


@pytest.mark.parametrize("stage", [1, 3])
def test_evaluation_sees_whole_weights_and_changes_nothing(tmp_path, stage):
    config = tiny_config(tmp_path / "plain", zero_stage=stage)
    tiny_trainer(config).fit()
    model = tiny_model()
    seen, terms = [], []

    def evaluator():
        torch.rand(3)  # uses random numbers
        model.eval()
        with torch.no_grad():
            for _ in range(2):  # twice: hooks must not take weights away after the first pass
                images = model.encode_image(torch.ones(1, 3, 16, 16))
        dense = model.encode_dense(torch.ones(1, 3, 16, 24))
        seen.append(images.sum().item() + dense.sum().item())
        # Unit vectors: one of the image, and one at each patch.
        terms.append(images.numel() + dense.numel())
        return {"sum": seen[-1]}

    watched = with_run(config, folder=str(tmp_path / "watched"), eval_every=2)
    tiny_trainer(watched, model=model, evaluators={"probe": evaluator}).fit()
    assert losses(tmp_path / "watched") == losses(tmp_path / "plain")
    assert [line["step"] for line in read_metrics(tmp_path / "watched") if "probe/sum" in line] == [
        0,
        2,
        4,
        6,
    ]
    assert len(set(seen)) == 4
    evaluator()
    # The closed trainer left the evaluated weights behind.
    close = float32_sum(terms[-1], scale=max(abs(value) for value in seen))
    assert seen[-1] == pytest.approx(seen[-2], rel=0, abs=close)
    assert abs(seen[-2] - seen[-3]) > 10 * close


def test_zero3_leaves_torch_as_it_was(tmp_path):
    before = torch.nn.functional.linear
    trainer = tiny_trainer(tiny_config(tmp_path, zero_stage=3))
    assert torch.nn.functional.linear is not before
    trainer.close()
    assert torch.nn.functional.linear is before


def test_trainings_after_one_another_on_one_model(tmp_path):
    model = tiny_model()
    for i, stage in enumerate((3, 1, 3, 0, 2)):
        tiny_trainer(tiny_config(tmp_path / str(i), steps=2, zero_stage=stage), model=model).fit()
        assert model.logit_scale.shape == ()
        assert all(type(m._parameters) is dict for m in model.modules())
    first = [losses(tmp_path / str(i))[0] for i in range(5)]
    assert first[-1] < first[0]


class NarrowTask(ClimTask):
    parameter_bounds = {"clip.logit_scale": (2.65, 2.665)}  # noqa: RUF012


@pytest.mark.parametrize(
    ("stage", "precision"), [(0, "fp32"), (1, "bf16"), (2, "fp32"), (3, "fp32")]
)
def test_bounds_hold_at_every_stage(tmp_path, stage, precision):
    model = tiny_model()
    config = tiny_config(tmp_path, zero_stage=stage, precision=precision)
    with Trainer(config, NarrowTask(model), NoiseLoader()) as trainer:
        trainer.fit()
    scales = [line["logit_scale"] for line in read_metrics(tmp_path)]
    low, high = math.exp(2.65), math.exp(2.665)
    slack = 1e-2 if precision == "bf16" else 1e-5  # the model's copy is rounded, the master is not
    assert all(low * (1 - slack) <= scale <= high * (1 + slack) for scale in scales)
    assert (
        min(abs(model.logit_scale.item() - limit) for limit in (2.65, 2.665)) < 1e-6
    )  # it did reach a limit


def test_started_folder_is_not_overwritten_and_missing_run_is_not_resumed(tmp_path):
    config = tiny_config(tmp_path / "run", steps=2)
    tiny_trainer(config).fit()
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    with pytest.raises(ValueError, match="clim-train resume"):
        tiny_trainer(config)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before
    with pytest.raises(ValueError, match="no run to resume"):
        tiny_trainer(with_run(config, folder=str(tmp_path / "other")), resume=True)


def test_resume_with_other_frozen_weights_is_refused(tmp_path):
    config = tiny_config(tmp_path / "run", steps=4)
    fit_until(tiny_trainer(config), 2)
    model = tiny_model()
    with torch.no_grad():
        model.clip.visual.conv1.weight.add_(0.1)
    with pytest.raises(ValueError, match="frozen weights"):
        tiny_trainer(config, model=model, resume=True)


def test_run_killed_before_its_first_checkpoint_starts_over(tmp_path):
    config = tiny_config(tmp_path / "run")
    trainer = tiny_trainer(config)
    trainer.save = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    trainer.close()
    tiny_trainer(config, resume=True).fit()
    whole = with_run(config, folder=str(tmp_path / "whole"))
    tiny_trainer(whole).fit()
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def test_finished_run_resumes_to_its_end(tmp_path):
    config = tiny_config(tmp_path / "run", steps=2)
    tiny_trainer(config).fit()
    before = losses(tmp_path / "run")
    trainer = tiny_trainer(config, resume=True)
    trainer.fit()
    assert trainer.step == 2
    assert losses(tmp_path / "run") == before


def test_export_needs_a_closed_engine(tmp_path):
    with (
        tiny_trainer(tiny_config(tmp_path / "run")) as trainer,
        pytest.raises(ValueError, match="close"),
    ):
        trainer.export()


def test_same_losses_with_checkpointed_gradients_at_stage_3(tmp_path):
    config = tiny_config(tmp_path / "plain", zero_stage=3)
    tiny_trainer(config).fit()
    model = tiny_model()
    model.set_grad_checkpointing(True)
    tiny_trainer(with_run(config, folder=str(tmp_path / "checkpointed")), model=model).fit()
    assert losses(tmp_path / "checkpointed") == pytest.approx(
        losses(tmp_path / "plain"), rel=SAME_LOSSES
    )


@pytest.mark.parametrize("name", [VIT, EVA])
def test_attention_readout_trains_alike_at_every_stage(tmp_path, name):
    """Region class tokens read the attention weights of every block outside their modules; ZeRO-3
    must gather them."""
    for stage in (1, 3):
        config = tiny_config(tmp_path / str(stage), steps=4, zero_stage=stage)
        task = ClimTask(
            tiny_model(name, unlocked_blocks=9), box_mode="attention", lockstep=stage == 3
        )
        Trainer(config, task, NoiseLoader()).fit()
    assert losses(tmp_path / "3") == pytest.approx(losses(tmp_path / "1"), rel=SAME_LOSSES)


def test_engine_options_reach_the_engine(tmp_path):
    config = with_engine(tiny_config(tmp_path / "run"), zero_stage=2, accumulation=3)
    with tiny_trainer(config) as trainer:
        assert trainer.engine._engine.zero_optimization_stage() == 2
        assert trainer.engine._engine.gradient_accumulation_steps() == 3


@pytest.mark.parametrize(("whole_below", "share"), [(0, 0), (100_000, 1)])
def test_stage_3_takes_weights_away_unless_they_are_small(tmp_path, whole_below, share):
    """The tests of stage 3 rely on the first: at DeepSpeed's default, tiny weights stay once they
    were gathered."""
    with tiny_trainer(
        tiny_config(tmp_path / "run", zero_stage=3, whole_below=whole_below)
    ) as trainer:
        trainer.engine.forward_backward(unit(0))
        trainer.engine.step(0.1)
        parameters = list(trainer.engine._engine.module.parameters())
        assert sum(tuple(p.shape) != (0,) for p in parameters) == share * len(parameters)


class Reconstruction:
    """The task of the README."""

    def __init__(self, model):
        self.model = model

    def loss(self, batch):
        return {"loss": (self.model(batch) - batch).square().mean()}

    def trainable_parameters(self):
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def save(self, folder, state):
        folder.mkdir(exist_ok=True)
        torch.save(dict(state), folder / "weights.pt")


class ConstantLoader(NoiseLoader):
    def __iter__(self):
        return iter([torch.eye(4)] * self.length)


@pytest.mark.parametrize("stage", [1, 3])
def test_task_of_ones_own(tmp_path, stage):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 4)
    )
    model[0].requires_grad_(False)
    frozen = model[0].weight.clone()
    with Trainer(
        tiny_config(tmp_path, steps=9, zero_stage=stage), Reconstruction(model), ConstantLoader()
    ) as trainer:
        trainer.fit()
    assert losses(tmp_path)[-1] < losses(tmp_path)[0]
    assert torch.equal(model[0].weight, frozen)
    saved = torch.load(tmp_path / "model" / "weights.pt")
    assert saved.keys() == model.state_dict().keys()
    assert saved["1.num_batches_tracked"] == model[1].num_batches_tracked == 9
    # Any alpha can be made of the export, the start and the trained weights: running statistics
    # count among them.
    before, after = (load_file(tmp_path / f"{name}.safetensors") for name in ("start", "trained"))
    assert (
        before.keys()
        == after.keys()
        == {k for k, v in saved.items() if v.is_floating_point() and k[0] != "0"}
    )
    for key, value in after.items():
        torch.testing.assert_close(saved[key], 0.7 * value + 0.3 * before[key])
        assert torch.equal(value, model.state_dict()[key])
