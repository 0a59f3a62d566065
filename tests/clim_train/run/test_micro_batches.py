"""Micro-batches of a run: epoch after epoch, and the place after each whole step."""

import pytest
import torch
from clim_train.run.micro_batches import MicroBatches
from clim_train.run.stopping import StopRequest
from tiny_training import NoiseLoader

HOST = torch.device("cpu")


def stream(accumulation=1, length=5):
    return MicroBatches(NoiseLoader(length), accumulation=accumulation, device=HOST)


def take(batches, steps, accumulation):
    """Return the captions of the micro-batches of some steps."""
    found = []
    for _ in range(steps * accumulation):
        found.append(batches.next(StopRequest()).captions)
        if batches.fill_a_step:
            batches.end_step()
    return found


def test_batches_that_fill_no_accumulation_are_skipped():
    alone = take(stream(), 10, 1)
    assert take(stream(2), 4, 2) == [*alone[:4], *alone[5:9]]


@pytest.mark.parametrize(("accumulation", "steps"), [(1, 3), (1, 5), (2, 1), (2, 2), (2, 3)])
@pytest.mark.parametrize("lost", [False, True])
def test_a_saved_place_continues_after_the_last_whole_step(accumulation, steps, lost):
    whole = take(stream(accumulation), steps + 4, accumulation)
    before = stream(accumulation)
    take(before, steps, accumulation)
    if lost:  # a micro-batch of a step that is not finished
        before.next(StopRequest())

    after = stream(accumulation)
    after.load_state_dict(before.state_dict())
    assert take(after, 4, accumulation) == whole[steps * accumulation :]


def test_loading_draws_no_random_numbers():
    batches = stream()
    before = torch.get_rng_state()
    take(batches, 2, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_close_ends_the_loader():
    ended = []

    class Loader(NoiseLoader):
        def __iter__(self):
            try:
                yield from super().__iter__()
            finally:
                ended.append(True)

    batches = MicroBatches(Loader(), accumulation=1, device=HOST)
    batches.next(StopRequest())
    batches.close()
    assert ended == [True]


def test_samples_are_what_the_batches_held():
    batches = stream()
    take(batches, 2, 1)
    assert batches.take_samples() == 24  # two batches of two units of six
    assert batches.take_samples() == 0


def test_a_step_has_all_its_micro_batches_after_a_change_of_ranks():
    """Two ranks saw 2 of their 4 batches; one rank has 7, so 3 are left, and a step takes 2."""
    place = {"micro_batches_seen": 2, "loader": {"epoch": 0, "position": 4}}
    batches = stream(2, length=7)
    batches.load_state_dict(place)
    ends = []
    for count in range(1, 13):
        batches.next(StopRequest())
        if batches.fill_a_step:
            ends.append(count)
    assert ends == [2, 4, 6, 8, 10, 12]
