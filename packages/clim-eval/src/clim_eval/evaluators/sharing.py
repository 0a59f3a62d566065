"""Sharing an evaluation between processes: who takes which items, and one result from all parts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from clim_data.processes import Ranks
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm


def keyed_batches(
    data: Any, key: Callable[[Any], Any], *, batch_size: int, workers: int = 0
) -> tuple[Iterator[list[tuple[Any, Any]]], int | None]:
    """This rank's batches of ``(key, item)`` pairs, and how many batches there are when that is
    known.

    ``data`` is a map-style dataset (``len`` and ``[index]``), whose items r, r + R, r + 2R, ... go
    to rank r of R with their index as key; or a loader: an iterable of lists of items that shares
    the data out itself, where ``key(item)`` names an item. Keys let `merge_by_key` drop what a
    padding sampler handed out twice.

    Raises ValueError for anything else.
    """
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        rank, world_size = Ranks.of_group()
        indices = range(rank, len(data), world_size)
        loader = DataLoader(
            Subset(data, indices), batch_size=batch_size, num_workers=workers, collate_fn=list
        )
        return _with_indices(loader, indices), len(loader)
    if isinstance(data, Iterable):
        known = len(data) if hasattr(data, "__len__") else None
        return ([(key(item), item) for item in batch] for batch in data), known
    raise ValueError(
        f"cannot evaluate on a {type(data).__name__}: pass a dataset with len() and [i], or a "
        "loader of lists of items"
    )


def live(batches: Iterable, total: int | None, title: str, show: bool) -> Iterable:
    """``batches`` with a live bar on rank 0 when ``show`` is true."""
    return tqdm(
        batches,
        total=total,
        desc=title,
        disable=not show or not Ranks.of_group().is_first,
        leave=False,
    )


def merge_by_key(parts: Sequence[Sequence[tuple[Any, Any]]]) -> list:
    """Values of the (key, value) pairs of all ranks, sorted by key, each key once.

    The order does not depend on the number of ranks, so sums and means come out bit-equal.
    """
    merged: dict = {}
    for part in parts:
        for key, value in part:
            merged.setdefault(key, value)
    return [merged[key] for key in sorted(merged)]


def _with_indices(loader: DataLoader, indices: Sequence[int]) -> Iterator[list[tuple[int, Any]]]:
    position = 0
    for batch in loader:
        yield list(zip(indices[position : position + len(batch)], batch, strict=True))
        position += len(batch)
