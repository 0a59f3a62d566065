"""Options of the training streams, checked when they are made."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from clim_data.faults import check_on_error
from clim_data.pixels.decode import pixel_limit
from clim_data.processes.ranks import Ranks
from clim_data.streams.draw import check_background

Whole = TypeVar("Whole")

ONE_PROCESS = Ranks()


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """Options that all loaders share: size, order, ranks, workers, faults and the cache.

    Raises:
        ValueError: an option is out of range.
    """

    batch_size: int
    """Images per rank and step; for mosaics, before they are laid out."""
    seed: int = 0
    """Seed of the order, and of all random numbers of a sample."""
    ranks: Ranks = ONE_PROCESS
    """Number of this process, and of how many."""
    workers: int = 0
    """Decoding processes; 0 decodes in this one."""
    on_error: str = "skip"
    """"skip" names broken samples in `skipped`, "raise" raises."""
    shuffle: bool = True
    """False keeps the order of the sources, for every epoch."""
    drop_last: bool = False
    """Drop an incomplete last step (see `global_steps`); by default nothing is lost."""
    background: str = "white"
    """What shows through transparent pixels: "white", or "random", a colour for each image and
    epoch."""
    max_pixels: int | None = None
    """Images with more are refused by their header; None takes the limit of `pixel_limit`."""
    cache_folder: str | Path | None = None
    """Folder for remote shards and large indexes; None takes `default_cache_folder()`."""
    cache_shards: int = 16
    """Remote shards in use at a time; their shuffle has windows of as many."""

    def __post_init__(self) -> None:
        check_whole("batch_size", self.batch_size, 1)
        check_whole("workers", self.workers, 0)
        check_whole("seed", self.seed, 0)
        check_on_error(self.on_error)
        check_background(self.background)
        check_whole("max_pixels", pixel_limit(self.max_pixels), 1)
        check_whole("cache_shards", self.cache_shards, 1)

        rank, world_size = self.ranks
        if not 0 <= rank < world_size:
            raise ValueError(f"rank={rank} must be at least 0 and below world_size={world_size}")


class StreamKeywords(TypedDict, total=False):
    """The fields of `StreamOptions` as keywords of a loader, and `ranks` as two numbers.

    Loaders accept them in place of `stream` for one release.
    """

    batch_size: int
    seed: int
    rank: int
    world_size: int
    workers: int
    on_error: str
    shuffle: bool
    drop_last: bool
    background: str
    max_pixels: int | None
    cache_folder: str | Path | None
    cache_shards: int


def choose_stream(stream: StreamOptions | None, keywords: Mapping[str, object]) -> StreamOptions:
    """Return `stream`, or make the options of `keywords`.

    Raises:
        ValueError: both are given, or an option is out of range.
        TypeError: a keyword is unknown, or neither `stream` nor `batch_size` is given.
    """
    if stream is not None:
        refuse_both("stream", keywords)
        return stream

    options: dict[str, Any] = dict(keywords)
    if "batch_size" not in options:
        raise TypeError("no batch size: give stream=StreamOptions(batch_size=...)")
    ranks = Ranks(options.pop("rank", 0), options.pop("world_size", 1))
    return StreamOptions(ranks=ranks, **options)


@dataclass(frozen=True, kw_only=True)
class CropRules:
    """Rules for the regions of an image in `CropLoader`, and for the size of their crops.

    Raises:
        ValueError: a rule is out of range.
    """

    max_split: int = 6
    """Rows and columns of a random grid, at most (6 and 16 are those of the paper's code)."""
    max_cells: int = 20
    """Regions of an image, at most."""
    context: float = 1.5
    """Size of a crop, in sizes of its box; only with boxes."""
    area_px: tuple[float, float] = (8, 1024)
    """Square roots of the smallest and largest area of a box in original pixels; only with
    boxes."""

    def __post_init__(self) -> None:
        check_whole("max_split", self.max_split, 1)
        check_whole("max_cells", self.max_cells, 1)
        if self.context < 1:
            raise ValueError(f"context={self.context} must be at least 1, the box itself")


class CropKeywords(StreamKeywords, total=False):
    """The fields of `CropRules` and `StreamOptions` as keywords of a loader, for one release."""

    max_split: int
    max_cells: int
    context: float
    area_px: tuple[float, float]


def choose_crops(
    rules: CropRules | None, keywords: Mapping[str, object]
) -> tuple[CropRules, dict[str, Any]]:
    """Return `rules`, or make them of `keywords`, and the remaining keywords.

    Raises:
        ValueError: both are given, or a rule is out of range.
    """
    left: dict[str, Any] = dict(keywords)
    given = {name: left.pop(name) for name in CropRules.__dataclass_fields__ if name in left}
    if rules is not None:
        refuse_both("regions", given)
    return rules or CropRules(**given), left


def refuse_both(name: str, keywords: Mapping[str, object]) -> None:
    """Raise ValueError if `keywords` are given next to the option object `name`."""
    if keywords:
        raise ValueError(
            f"{', '.join(keywords)} given next to {name}: set it in the object of {name}"
        )


def check_whole(name: str, value: Whole, low: int) -> Whole:
    """Return `value` when it is a whole number of at least `low`, else raise ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {low}")
    return value
