"""Training of the heads: the loss, what the engine gets, golden losses and steps, whole runs at
every ZeRO stage."""

import json
from dataclasses import replace

import pytest
import torch
from clim_models.losses import mask_losses
from clim_train import EngineConfig, OptimConfig, RunConfig, ScheduleConfig, Trainer, read_metrics
from clim_train.engine import EngineModule, trained_entries
from flmm.heads.files import heads_from_released
from flmm.refiners.square import ResizedImage
from flmm.samples import GroundingBatch, GroundingItem
from flmm.training.config import GroundingConfig, GroundingDataConfig
from flmm.training.task import GroundingTask
from golden_lmms import (
    CASES,
    cases_about,
    golden_grounded,
    golden_steps,
    picture_of,
    sample_of,
)
from safetensors.torch import load_file
from tiny_grounding import batch_of, fit_until, tiny_config, tiny_grounded, tiny_trainer
from tolerance import SAME_LOSSES

FIGURES = ("loss_mask", "loss_dice", "accuracy", "aiou")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_engine_gets_neither_lmm_nor_image_encoder():
    model = tiny_grounded()
    task = GroundingTask(model)
    module = EngineModule(task, device_type="cpu")
    names = {name.removeprefix("model.") for name, _ in module.named_parameters()}
    assert names == set(task.trainable_parameters()) == set(model.trained_names())
    frozen = ("lmm.", "sam.image_encoder.")
    assert not any(
        name.startswith(frozen) for name in [*task.model.state_dict(), *trained_entries(task)]
    )
    assert {id(p) for p in task.model.direct_parameters()} == {
        id(p) for p in task.trainable_parameters().values()
    }


def test_loss_is_the_sum_of_four_means_over_phrases():
    model = tiny_grounded().train()
    task = GroundingTask(model)
    batch = batch_of(model, [0, 1], [1, 3])
    found = task.loss(batch)
    masks = [g for i in batch.items for g in model([i.sample], [_embedding(model, i.image)])]
    targets = [item.masks for item in batch.items]
    expected = mask_losses([m.coarse for m in masks], targets)
    refined = mask_losses([m.refined for m in masks], targets)
    for name in FIGURES:
        assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-4, abs=1e-6)
        assert found[f"sam_{name}"].item() == pytest.approx(
            refined[name].item(), rel=1e-4, abs=1e-6
        )
    terms = [
        found[name].item() for name in ("loss_mask", "loss_dice", "sam_loss_mask", "sam_loss_dice")
    ]
    assert found["loss"].item() == pytest.approx(sum(terms))
    assert found["phrases"].item() == 4


def _embedding(model, image):
    (embedding,) = model.sam.embed([image])
    return embedding


def test_nothing_to_learn_has_a_loss_of_zero_and_gradients_for_the_same_weights():
    def gradients(batch):
        task = GroundingTask(tiny_grounded())
        task.model.train()
        found = task.loss(batch)
        found["loss"].backward()
        return found, {
            n: p.grad for n, p in task.trainable_parameters().items() if p.grad is not None
        }

    empty, nothing = gradients(GroundingBatch(()))
    _, something = gradients(batch_of(tiny_grounded(), [0], [2]))
    assert empty["loss"].item() == 0
    assert all((g == 0).all() for g in nothing.values())
    assert nothing.keys() == something.keys()


def test_a_bfloat16_lmm_has_float32_heads():
    model = tiny_grounded()
    model.lmm.to(torch.bfloat16)
    task = GroundingTask(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = task.loss(batch_of(model, [0], [2]))
    found["loss"].backward()
    assert {p.dtype for p in task.trainable_parameters().values()} == {torch.float32}
    assert model.lmm.model.dtype == torch.bfloat16
    assert found["loss"].isfinite()
    assert found["loss"].dtype == torch.float32


def golden_batch(case, model, names) -> GroundingBatch:
    items = [
        GroundingItem(
            name,
            case.tensor(f"{name}__masks") > 0,
            sample=sample_of(case, name),
            image=ResizedImage.of(picture_of(case, name), model.sam.square),
        )
        for name in names
    ]
    return GroundingBatch(tuple(items))


@pytest.mark.parametrize("family", CASES)
def test_golden_losses_and_gradients(golden, family):
    case = golden("forward", f"flmm/{family}")
    training = case.meta["training"]
    task = GroundingTask(golden_grounded(case))
    task.model.train()
    names = training.get("samples", list(case.meta["samples"]))
    found = task.loss(golden_batch(case, task.model, names))
    for name, value in training["loss_dict"].items():
        # Accuracy and IoU count pixels beyond a threshold: rounding may turn a few of those that
        # lie on it.
        slack = {"rel": 1e-4, "abs": 1e-5} if "loss" in name else {"rel": 1e-3, "abs": 1e-3}
        assert found[name].item() == pytest.approx(value, **slack), name
    assert found["loss"].item() == pytest.approx(training["total_loss"], rel=1e-4)
    found["loss"].backward()
    norms = heads_from_released(
        {k: torch.tensor(v or 0.0) for k, v in training["param_grad_l2"].items()}
    )
    for name, parameter in task.trainable_parameters().items():
        norm = 0.0 if parameter.grad is None else parameter.grad.norm().item()
        assert norm == pytest.approx(norms[name].item(), rel=5e-3, abs=5e-6), name


class SameBatch:
    """A loader of one batch, which every step gets."""

    def __init__(self, batch: GroundingBatch):
        self.batch = batch

    def __len__(self) -> int:
        return 1

    def __iter__(self):
        return iter([self.batch])

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        raise AssertionError("this run is not resumed")


@pytest.mark.parametrize("family", cases_about("training", "trajectory"))
def test_golden_steps_of_a_run(golden, tmp_path, family):
    """The original's optimizer steps, by the trainer: its loss, clipping and AdamW, read back from
    the metrics."""
    case = golden("forward", f"flmm/{family}")
    optim, steps = golden_steps(case)
    *trained, after = steps
    task = GroundingTask(golden_grounded(case))
    names = list(case.meta["samples"])
    batch = golden_batch(case, task.model, names)
    kept = task.frozen_features(batch.items, torch.device("cpu"))
    batch = GroundingBatch(
        tuple(replace(item, kept=features) for item, features in zip(batch.items, kept))
    )
    config = GroundingConfig(
        data=GroundingDataConfig(batch_size=len(names), workers=0),
        optim=OptimConfig(**optim, eps=1e-8, decay="all"),
        schedule=ScheduleConfig(kind="const", steps=len(trained), warmup_steps=0),
        engine=EngineConfig(zero_stage=0, precision="fp32", device="cpu"),
        run=RunConfig(folder=str(tmp_path / "run"), log_every=1, bar=False, tensorboard=False),
    )
    Trainer(config, task, SameBatch(batch)).fit()
    found = [line["loss"] for line in read_metrics(tmp_path / "run")]
    assert found == pytest.approx([step["total"] for step in trained], rel=2e-3)
    with torch.no_grad():
        assert task.loss(batch)["loss"].item() == pytest.approx(after["total"], rel=2e-3)


def test_runs_at_every_stage_are_the_same_and_resume(tmp_path):
    """In one process; also the files that a run leaves behind."""
    losses = {}
    for stage in (0, 2, 3):
        config = tiny_config(tmp_path / f"stage{stage}", zero_stage=stage)
        trainer = tiny_trainer(config)
        trainer.fit()
        losses[stage] = [line["loss"] for line in read_metrics(tmp_path / f"stage{stage}")]
        assert losses[stage] == pytest.approx(losses[0], rel=1e-4)
    assert not torch.equal(
        trainer.task.model.text_layer_weights, tiny_grounded().text_layer_weights
    )
    line = read_metrics(tmp_path / "stage3")[-1]
    assert set(FIGURES) | {f"sam_{name}" for name in FIGURES} <= set(line)
    config = tiny_config(tmp_path / "parts", zero_stage=2)
    fit_until(tiny_trainer(config), 2)
    tiny_trainer(config, resume=True).fit()
    assert [line["loss"] for line in read_metrics(tmp_path / "parts")] == pytest.approx(
        losses[2], rel=SAME_LOSSES
    )
    saved = load_file(tmp_path / "stage3" / "model" / "heads.safetensors")
    model = tiny_grounded(seed=9)
    assert set(saved) == set(model.trained_names())
    model.load_heads(tmp_path / "stage3" / "model" / "heads.safetensors")
    for name, value in trainer.task.trainable_parameters().items():
        torch.testing.assert_close(model.heads.state_dict()[name], value.detach(), msg=name)
    assert json.loads((tmp_path / "stage3" / "model" / "grounding.json").read_text()) == {}
