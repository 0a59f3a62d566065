"""CLIPSelf and RegionCLIP-style training in two processes, started once, against one with the same
global batch."""

from pathlib import Path

import pytest
import torch
from clim_train.run.metrics import read_metrics
from region_training import (
    COUNTS,
    REGION_METHODS,
    join_regions,
    region_config,
    region_task,
    region_trainer,
    region_unit,
)
from tiny_training import EVA, VIT
from tolerance import SAME_LOSSES
from two_processes import run_two_processes


def losses(folder):
    return [line["loss"] for line in read_metrics(folder)]


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Folder of what two processes wrote."""
    return run_two_processes(
        Path(__file__).parents[1] / "workers" / "two_ranks_regions.py",
        tmp_path_factory.mktemp("two_ranks_regions"),
    )


@pytest.mark.parametrize("step", range(len(COUNTS)), ids=lambda step: str(COUNTS[step]))
@pytest.mark.parametrize("name", [VIT, EVA])
@pytest.mark.parametrize("method", REGION_METHODS)
def test_two_ranks_have_the_loss_and_gradients_of_one_process(launched, method, name, step):
    """Also with unequally many boxes, and with a rank that has none."""
    task = region_task(method, name=name)
    loss = task.loss(
        join_regions([region_unit(method, rank, COUNTS[step][rank]) for rank in (0, 1)])
    )["loss"]
    loss.backward()
    expected = {name: p.grad for name, p in task.trainable_parameters().items()}
    for rank in (0, 1):
        found = torch.load(launched / f"{method}-{name}-{step}-{rank}.pt")
        assert found.pop("loss").item() == pytest.approx(loss.item(), rel=SAME_LOSSES)
        assert found.keys() == expected.keys()
        largest = max(value.abs().max().item() for value in expected.values())
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5 * largest, msg=key)


def test_ranks_ask_about_the_same_classes(launched):
    ours, theirs = (torch.load(launched / f"classes{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert [int(weights.sum()) for weights in ours] == [6, 6, 8]
    for weights, present in zip(ours, ([3, 9, 5], [1], list(range(8))), strict=True):
        assert weights[present].eq(1).all()
    # By chance, and by other chance in the next batch.
    assert not torch.equal(ours[0].nonzero(), ours[1].nonzero())


@pytest.mark.parametrize("stage", [1, 3])
@pytest.mark.parametrize("method", REGION_METHODS)
def test_two_ranks_train_as_one_process(launched, tmp_path, method, stage):
    region_trainer(region_config(method, tmp_path, zero_stage=stage)).fit()
    assert losses(launched / f"{method}{stage}") == pytest.approx(losses(tmp_path), rel=2e-4)


def test_two_ranks_resume_with_the_samples_of_an_uninterrupted_run(launched):
    assert losses(launched / "resumed") == losses(launched / "sampled")
