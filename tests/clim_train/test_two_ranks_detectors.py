"""Training of detectors in two processes, started once, against one with the same global batch."""

from pathlib import Path

import pytest
import torch
from clim_train.run.metrics import read_metrics
from detector_training import (
    COUNTS,
    DETECTORS,
    TOWERS,
    detector_config,
    detector_trainer,
    equal_draws,
    join_views,
    small_task,
    view_batch,
)
from tiny_training import tiny_model
from tolerance import SAME_LOSSES
from two_processes import run_two_processes


@pytest.fixture(autouse=True)
def _same_draws(monkeypatch):
    equal_draws(monkeypatch.setattr)


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Folder of what two processes wrote."""
    return run_two_processes(
        Path(__file__).parents[1] / "workers" / "two_ranks_detectors.py",
        tmp_path_factory.mktemp("two_ranks_detectors"),
    )


def losses(folder):
    return [line["loss"] for line in read_metrics(folder)]


@pytest.mark.parametrize("step", range(len(COUNTS)), ids=lambda step: str(COUNTS[step]))
@pytest.mark.parametrize("method", DETECTORS)
def test_two_ranks_have_the_loss_gradients_and_norms_of_one_process(launched, method, step):
    """Also with unequally many boxes and masks, and with a rank that has none."""
    task = small_task(method, tiny_model(TOWERS[method]))
    task.model.train()
    units = [view_batch(2 * step + rank, COUNTS[step][rank]) for rank in (0, 1)]
    loss = task.loss(join_views(units))["loss"]
    loss.backward()
    expected = {name: p.grad for name, p in task.trainable_parameters().items()}
    norms = {n: b for n, b in task.model.named_buffers() if n.endswith(("_mean", "_var"))}
    assert norms

    largest = max(value.norm().item() for value in expected.values())
    for rank in (0, 1):
        found = torch.load(launched / f"{method}-{step}-{rank}.pt")
        assert found.pop("loss").item() == pytest.approx(loss.item(), rel=SAME_LOSSES)
        assert found.keys() == expected.keys() | norms.keys()
        for key, value in expected.items():
            # A feature within a rounding of 0 may pass a ReLU in one of the two: about a
            # hundredth of a gradient of some hundred boxes.
            distance = (found[key] - value).norm().item()
            assert distance < 0.02 * value.norm().item() + 1e-5 * largest, key
        for key, value in norms.items():
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.parametrize("stage", [0, 2])
def test_two_ranks_train_as_one_process(launched, tmp_path, stage):
    detector_trainer(detector_config("fvit", tmp_path, zero_stage=stage)).fit()
    assert losses(launched / f"zero{stage}") == pytest.approx(losses(tmp_path), rel=1e-3)


def test_two_ranks_resume_with_the_losses_of_an_uninterrupted_run(launched):
    assert losses(launched / "parts") == losses(launched / "zero2")
