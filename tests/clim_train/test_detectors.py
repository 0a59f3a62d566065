"""Every detector on every kind of tower: two steps in which all of the detector trains and nothing
of the tower; stages, precisions, resuming."""

import pytest
import torch
from clim_models.detection import open_detector
from clim_train.engine.optim import build_optimizer
from clim_train.export import export_checkpoint
from clim_train.options.sections import OptimConfig
from clim_train.run.metrics import read_metrics
from detector_training import (
    DETECTORS,
    TOWERS,
    detector_config,
    detector_trainer,
    small_task,
    view_batch,
)
from safetensors.torch import load_file
from tiny_towers import build_clip, build_eva, build_timm, build_vit
from tiny_training import fit_until, tiny_model

MATRIX = [
    ("fvit", "eva"),
    ("fvit", "vit"),
    ("fvit", "timm_cls"),
    ("fvit", "timm_siglip"),
    ("fvlm", "eva"),
    ("fvlm", "vit"),
    ("fvlm", "timm_avg"),
    ("fvlm", "resnet"),
    ("fvlm", "timm_convnext"),
]


def build_tower(name, golden):
    if name.startswith("timm_"):
        return build_timm(name.removeprefix("timm_"))
    if name == "vit":
        return build_vit()
    # Weights of the golden cases: those of a new ResNet end every branch with a norm of zero.
    return (
        build_eva(golden("case01_eva_b")) if name == "eva" else build_clip(golden("case03_resnet"))
    )


@pytest.mark.parametrize(("method", "tower"), MATRIX)
def test_detector_trains_on_tower(method, tower, golden):
    model = build_tower(tower, golden)
    task = small_task(method, model, image_size=6 * model.stride)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = task.trainable_parameters()
    optimizer = build_optimizer(trained, OptimConfig(lr=1e-3))
    task.model.train()

    losses = []
    for step in range(2):
        optimizer.zero_grad()
        # The second image has no box, and a background has no mask.
        scalars = task.loss(view_batch(1, (3, 0), px=6 * model.stride))
        scalars["loss"].backward()
        losses.append(scalars["loss"].item())
        if step == 0:
            assert [name for name, p in trained.items() if p.grad is None] == []
            assert scalars["loss_mask"] > 0
        optimizer.step()
    assert losses[1] < losses[0]
    after = model.state_dict()
    assert [name for name, value in before.items() if not torch.equal(value, after[name])] == []


def losses_of(folder):
    return [line["loss"] for line in read_metrics(folder)]


@pytest.mark.parametrize("method", DETECTORS)
def test_an_interrupted_run_continues_exactly_and_is_opened(method, tmp_path):
    whole = detector_config(method, tmp_path / "whole", zero_stage=1)
    detector_trainer(whole).fit()
    parts = detector_config(method, tmp_path / "parts", zero_stage=1)
    fit_until(detector_trainer(parts), 4)
    detector_trainer(parts, resume=True).fit()
    assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")

    weights, again = (load_file(tmp_path / k / "trained.safetensors") for k in ("whole", "parts"))
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    # Statistics of batch norms are part of a checkpoint.
    assert any(name.endswith("running_mean") for name in weights)

    detector = open_detector(tmp_path / "parts", trusted=True)
    assert detector.names == tuple(f"class {i}" for i in range(5))
    found = detector.detect([torch.randint(0, 256, (3, 40, 48), dtype=torch.uint8)])
    assert found[0].masks is not None


def test_stages_and_precisions_train_alike(tmp_path):
    runs = {}
    for stage in (0, 1, 2):
        folder = tmp_path / f"zero{stage}"
        detector_trainer(detector_config("fvit", folder, zero_stage=stage)).fit()
        runs[stage] = losses_of(folder)
    assert runs[1] == pytest.approx(runs[0], rel=1e-3)
    assert runs[2] == pytest.approx(runs[0], rel=1e-3)

    for precision in ("amp_bf16", "bf16"):
        folder = tmp_path / precision
        config = detector_config("fvit", folder, zero_stage=1, precision=precision)
        detector_trainer(config).fit()
        first, *_, last = losses_of(folder)
        # Eight bits of mantissa; later steps depend on which proposals are chosen.
        assert first == pytest.approx(runs[0][0], rel=0.05)
        assert last < first


def test_a_stopped_run_is_exported_without_its_data(tmp_path):
    config = detector_config("fvlm", tmp_path, zero_stage=0)
    fit_until(detector_trainer(config), 2)
    task = small_task("fvlm", tiny_model(TOWERS["fvlm"]))
    export_checkpoint(config, task)
    assert open_detector(tmp_path, trusted=True).classes.base == (0, 1, 3)
