"""Decoded items of a data set that stay in memory, for several passes over the same images."""

import copy
from collections.abc import Iterator
from typing import Any

from clim_data.processes import Ranks
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset


class KeptItems:
    """A map-style data set as a loader of lists of items, which keeps what it has read while there
    is room.

    Each rank has items r, r + R, ...; a pass first gives the kept ones, then reads the others.
    Evaluators know the items by their id, so the order plays no part.

    Args:
        data: items are dataclasses or tuples with tensors, and bring an id
            (see `clim_eval.evaluators.sharing.keyed_batches`).
        batch_size: items per list.
        workers: loading processes.
        budget: bytes of tensors to keep in this process; 0 keeps nothing.
    """

    def __init__(self, data: Dataset, *, batch_size: int, workers: int = 0, budget: float = 4e9):
        rank, world_size = Ranks.of_group()
        self.data, self.batch_size, self.workers, self.room = data, batch_size, workers, budget
        self.indices = range(rank, len(data), world_size)
        self._kept: dict[int, Any] = {}

    def __len__(self) -> int:
        """Lists of the next pass: kept and unkept items are not mixed."""
        kept = len(self._kept)
        return sum(-(-count // self.batch_size) for count in (kept, len(self.indices) - kept))

    def __iter__(self) -> Iterator[list]:
        known = list(self._kept.values())
        for start in range(0, len(known), self.batch_size):
            yield known[start : start + self.batch_size]
        unknown = [index for index in self.indices if index not in self._kept]
        loader = DataLoader(
            Subset(self.data, unknown),
            batch_size=self.batch_size,
            num_workers=self.workers,
            collate_fn=list,
        )
        position = 0
        for batch in loader:
            for index, item in zip(unknown[position : position + len(batch)], batch, strict=True):
                self._keep(index, item)
            position += len(batch)
            yield batch

    def _keep(self, index: int, item: Any) -> None:
        size = tensor_bytes(item)
        if size <= self.room:
            self.room -= size
            # Items of a worker lie in shared memory, of which there is little: keep a copy outside
            # of it.
            self._kept[index] = copy.deepcopy(item) if self.workers else item


def tensor_bytes(item: Any) -> int:
    """Bytes of the tensors in a dataclass or tuple."""
    values = item if isinstance(item, tuple) else vars(item).values()
    return sum(
        value.numel() * value.element_size() for value in values if isinstance(value, Tensor)
    )
