"""Means of the scalars of a run."""

import pytest
import torch
from clim_train.run.metrics import RunningMean


def scalars(**values):
    return {name: torch.tensor(float(value)) for name, value in values.items()}


def test_a_scalar_that_some_micro_batches_lack_is_averaged_over_the_others():
    means = RunningMean()
    means.add(scalars(loss=1, captions=4))
    means.add(scalars(loss=3))
    assert means.peek("loss") == 2
    assert means.reduce() == {"captions": 4, "loss": 2}
    assert means.reduce() == {}


@pytest.mark.parametrize("old", [False, True])
def test_means_continue_from_a_checkpoint(old):
    means = RunningMean()
    means.add(scalars(loss=1))
    means.add(scalars(loss=3))
    state = means.state_dict()
    if old:
        state = {"sums": state["sums"], "count": 2}

    after = RunningMean()
    after.load_state_dict(state)
    after.add(scalars(loss=5))
    assert after.reduce() == {"loss": 3}
