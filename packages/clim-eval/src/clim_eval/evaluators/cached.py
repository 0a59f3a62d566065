"""Decoded items of a data set that stay in memory, for several passes over the same images."""

import copy
from collections.abc import Iterator
from typing import Any

from clim_data import BrokenSample
from clim_data.processes import Ranks
from torch import Tensor

from clim_eval.evaluators.sharing import ItemLists, Items, with_indices


class CachedItems:
    """A map-style data set as a loader of lists of items that stay in memory while there is room.

    Each rank has items r, r + R, ...; a pass first gives the cached ones, then reads the others.
    Evaluators know the items by their id, so the order plays no part.

    An item that could not be read is never cached. One whose file was replaced since (the data
    set's `stamp(index)` says so) is read again.

    Args:
        data: items are dataclasses or tuples with tensors, and bring an id
            (see `clim_eval.evaluators.sharing.keyed_batches`).
        batch_size: items per list.
        workers: loading processes.
        budget: bytes of tensors to keep in this process; 0 keeps nothing.
    """

    def __init__(self, data: Items, *, batch_size: int, workers: int = 0, budget: float = 4e9):
        rank, world_size = Ranks.of_group()
        self.data, self.batch_size, self.workers, self.room = data, batch_size, workers, budget
        self.indices = range(rank, len(data), world_size)
        self._items: dict[int, tuple[Any, Any]] = {}  # index -> (stamp, item)

    @property
    def left_out(self) -> tuple[BrokenSample, ...]:
        """Items that the list of the data set excludes before any item is read."""
        return getattr(self.data, "left_out", ())

    @property
    def left_out_regions(self) -> tuple[BrokenSample, ...]:
        """Regions that the annotations of the data set exclude before any item is read."""
        return getattr(self.data, "left_out_regions", ())

    def __len__(self) -> int:
        """Return the number of lists of the next pass: a list has cached or read items only."""
        cached = len(self._items)
        counts = (cached, len(self.indices) - cached)
        return sum(-(-count // self.batch_size) for count in counts)

    def __iter__(self) -> Iterator[list[Any]]:
        self._drop_replaced()
        cached = [item for _, item in self._items.values()]
        for start in range(0, len(cached), self.batch_size):
            yield cached[start : start + self.batch_size]

        unread = [index for index in self.indices if index not in self._items]
        lists = ItemLists(self.data, unread, self.batch_size, self.workers)
        for batch in with_indices(lists, unread):
            for index, item in batch:
                self._cache(index, item)
            yield [item for _, item in batch]

    def _stamp(self, index: int) -> Any:
        stamp = getattr(self.data, "stamp", None)
        return None if stamp is None else stamp(index)

    def _drop_replaced(self) -> None:
        for index, (stamp, item) in list(self._items.items()):
            if self._stamp(index) != stamp:
                del self._items[index]
                self.room += tensor_bytes(item)

    def _cache(self, index: int, item: Any) -> None:
        size = tensor_bytes(item)
        if size > self.room or getattr(item, "fault", None) is not None:
            return

        self.room -= size
        # Items of a worker lie in shared memory, of which there is little: cache a copy outside
        # of it.
        self._items[index] = self._stamp(index), copy.deepcopy(item) if self.workers else item


def tensor_bytes(item: Any) -> int:
    """Count the bytes of the tensors in a dataclass or tuple."""
    values = item if isinstance(item, tuple) else vars(item).values()
    return sum(
        value.numel() * value.element_size() for value in values if isinstance(value, Tensor)
    )
