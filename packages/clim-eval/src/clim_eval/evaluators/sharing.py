"""Sharing of an evaluation between processes: the items of each rank, and one result of all."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict, TypeVar

from clim_data import BrokenSample
from clim_data.processes import Ranks, gather_objects, load_in_workers
from tqdm import tqdm

Item = TypeVar("Item")


@dataclass(frozen=True)
class EvaluationLoading:
    """Options of an evaluator for loading and progress.

    batch_size: images per forward pass; None is the evaluator's default.
    workers: loading processes; 0 loads in the evaluating process.
    progress: show a live bar on rank 0.
    """

    batch_size: int | None = None
    workers: int = 0
    progress: bool = False

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}: pass at least 1 image")
        if self.workers < 0:
            raise ValueError(f"workers={self.workers}: pass 0 or more processes")


class LoadingKeywords(TypedDict, total=False):
    """The fields of `EvaluationLoading` one by one."""

    batch_size: int
    workers: int
    progress: bool


def check_sizes(batch_size: int | None, workers: int, part_images: int) -> None:
    """Refuse sizes out of range, by the names of their options.

    Raises:
        ValueError: no image per pass or part, or a negative number of processes.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"--batch-size {batch_size}: pass at least 1")
    if workers < 0:
        raise ValueError(f"--workers {workers}: pass 0 or more processes")
    if part_images < 1:
        raise ValueError(f"--part-images {part_images}: pass at least 1 image")


def choose_loading(
    loading: EvaluationLoading | None, keywords: Mapping[str, Any]
) -> EvaluationLoading:
    """Return `loading`, or make it of `keywords`.

    Raises:
        ValueError: keywords are given next to `loading`, or are out of range.
        TypeError: a keyword is unknown.
    """
    if loading is not None and keywords:
        raise ValueError(
            f"{', '.join(keywords)} given next to loading: set it in EvaluationLoading"
        )
    return loading or EvaluationLoading(**keywords)


class Items(Protocol):
    """A map-style data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class ItemLists:
    """Lists of the items of a data set at some indices, in this order.

    Each pass starts workers of its own. A worker that fails ends the pass with an error.
    """

    data: Items
    indices: Sequence[int]
    batch_size: int
    workers: int = 0

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[Any]]:
        return load_in_workers(
            self.data,
            self.indices,
            workers=self.workers,
            batch_size=self.batch_size,
            collate=list,
        )


def keyed_batches(
    data: Any, key: Callable[[Any], Any], *, batch_size: int, workers: int = 0
) -> tuple[Iterator[list[tuple[Any, Any]]], int | None]:
    """Return this rank's batches of ``(key, item)`` pairs, and their number if it is known.

    ``data`` is a map-style dataset (``len`` and ``[index]``), whose items r, r + R, r + 2R, ... go
    to rank r of R with their index as key. Or it is a loader: an iterable of lists of items that
    shares the data out itself, where ``key(item)`` names an item. With keys, `merge_by_key` drops
    items that a padding sampler gave out twice.

    Raises:
        ValueError: data is neither.
    """
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        rank, world_size = Ranks.of_group()
        indices = range(rank, len(data), world_size)
        lists = ItemLists(data, indices, batch_size, workers)
        return with_indices(lists, indices), len(lists)

    if isinstance(data, Iterable):
        length = getattr(data, "__len__", None)
        return _with_keys(data, key), length() if length is not None else None

    raise ValueError(
        f"cannot evaluate on a {type(data).__name__}: pass a dataset with len() and [i], or a "
        "loader of lists of items"
    )


def progress_bar(
    batches: Iterable[Item], total: int | None, title: str, show: bool
) -> Iterable[Item]:
    """Show a live bar over ``batches`` on rank 0 if ``show`` is true."""
    return tqdm(
        batches,
        total=total,
        desc=title,
        disable=not show or not Ranks.of_group().is_first,
        leave=False,
    )


def merge_by_key(parts: Sequence[Sequence[tuple[Any, Item]]]) -> list[Item]:
    """Join the (key, value) pairs of all ranks: values sorted by key, each key once.

    The order does not depend on the number of ranks, so sums and means come out bit-equal.
    """
    merged: dict[Any, Item] = {}
    for part in parts:
        for key, value in part:
            merged.setdefault(key, value)
    return [merged[key] for key in sorted(merged)]


def gather_faults(data: Any, faults: Sequence[tuple[Any, BrokenSample]] = ()) -> list[BrokenSample]:
    """Return the faults of ``data``: those of its list, then the (key, fault) pairs of all ranks.

    `left_out` of a data set has the items that its list excludes before any item is read.
    Collective.
    """
    return [*getattr(data, "left_out", ()), *merge_by_key(gather_objects(list(faults)))]


def with_indices(
    lists: Iterable[list[Item]], indices: Sequence[int]
) -> Iterator[list[tuple[int, Item]]]:
    """Yield the lists of `ItemLists`, each item with its index."""
    position = 0
    for batch in lists:
        yield list(zip(indices[position : position + len(batch)], batch, strict=True))
        position += len(batch)


def _with_keys(
    loader: Iterable[list[Item]], key: Callable[[Item], Any]
) -> Iterator[list[tuple[Any, Item]]]:
    for batch in loader:
        yield [(key(item), item) for item in batch]
