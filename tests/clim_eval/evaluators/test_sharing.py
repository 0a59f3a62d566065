"""Lists of items, made in this process or in workers."""

import os
import signal

import pytest
from clim_eval.evaluators.sharing import ItemLists, keyed_batches


class Numbers:
    """Items 0 to 6; the worker that makes item `killer` is killed."""

    def __init__(self, killer=None):
        self.killer = killer

    def __len__(self):
        return 7

    def __getitem__(self, number):
        if number == self.killer:
            os.kill(os.getpid(), signal.SIGKILL)
        return number


@pytest.mark.parametrize("workers", [0, 2])
def test_lists_come_in_order_in_every_pass(workers):
    lists = ItemLists(Numbers(), [6, 1, 3, 0], 3, workers)
    assert len(lists) == 2
    for _ in range(2):
        assert list(lists) == [[6, 1, 3], [0]]
    batches, total = keyed_batches(Numbers(), int, batch_size=4, workers=workers)
    assert total == 2
    assert list(batches) == [[(0, 0), (1, 1), (2, 2), (3, 3)], [(4, 4), (5, 5), (6, 6)]]


def test_a_killed_worker_ends_the_pass():
    with pytest.raises(RuntimeError, match=r"exited unexpectedly|killed"):
        list(ItemLists(Numbers(killer=2), range(7), 2, workers=1))
