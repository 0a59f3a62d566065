"""Lists of pictures, read ahead of the model in threads.

Letters: S longest side of the input.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from clim_models.pipelines.pictures import Source, fetch, name_of_picture, read_with_size

# Threads that decode; Pillow and torch leave Python's lock while they work.
THREADS = min(4, os.cpu_count() or 1)
Item = TypeVar("Item")
Given = TypeVar("Given")


@dataclass(frozen=True)
class ReadPicture:
    """A picture at the size that a model reads.

    Attributes:
        source: what was read; of a URL its bytes.
        name: what messages and files call it.
        size: (height, width) of the whole picture, upright.
        pixels: uint8 RGB (3, h, w).
        error: why it cannot be read; then it has no size and no pixels.
    """

    source: Source
    name: str
    size: tuple[int, int]
    pixels: Tensor
    error: str = ""

    @classmethod
    def unread(cls, source: Source, name: str, error: str) -> "ReadPicture":
        """Return what stands for a picture that cannot be read."""
        return cls(source, name, (0, 0), torch.zeros(3, 0, 0, dtype=torch.uint8), error)


def is_one(pictures: object) -> bool:
    """Return whether the argument of a pipeline is one picture, and not a list of them."""
    if isinstance(pictures, torch.Tensor | np.ndarray):
        return pictures.ndim < 4
    return not isinstance(pictures, Iterable) or isinstance(pictures, str | bytes)


def read_whole(numbered: tuple[int, Source]) -> ReadPicture:
    """Read a picture, given as (number, source), at its own size."""
    return _read(numbered, None)


def read_fitted(numbered: tuple[int, Source], longest: int, stride: int) -> ReadPicture:
    """Read a picture, given as (number, source), for a tower.

    The longest side becomes S, both sides multiples of the stride, the shape nearly stays.
    """

    def fit(size: tuple[int, int]) -> tuple[int, int]:
        return fitted_to_patches(size, longest, stride)

    found = _read(numbered, fit)
    wanted = list(fit(found.size))
    small = resize(found.pixels, wanted, interpolation=InterpolationMode.BICUBIC, antialias=True)
    return ReadPicture(found.source, found.name, found.size, small)


def fitted_to_patches(size: tuple[int, int], longest: int, stride: int) -> tuple[int, int]:
    """Return (height, width) near the shape of `size` whose longest side is near `longest`, in
    multiples of the stride."""
    scale = longest / max(size)
    height, width = (max(stride, round(side * scale / stride) * stride) for side in size)
    return height, width


def read_ahead(
    read: Callable[[Given], Item], given: Iterable[Given], *, ahead: int
) -> Iterator[Item]:
    """Yield `read(item)` of each item in order; threads are up to `ahead` items further."""
    items = iter(given)
    with ThreadPoolExecutor(THREADS) as threads:
        waiting: deque[Future[Item]] = deque()
        try:
            waiting.extend(threads.submit(read, item) for item in islice(items, ahead))
            while waiting:
                found = waiting.popleft().result()
                waiting.extend(threads.submit(read, item) for item in islice(items, 1))
                yield found
        finally:
            # After an error nothing more is read.
            for future in waiting:
                future.cancel()


def in_lists(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` items; the last may be shorter."""
    stream = iter(items)
    while part := list(islice(stream, size)):
        yield part


def by_shape(pictures: Sequence[ReadPicture], batch_size: int) -> Iterator[list[int]]:
    """Yield places of pictures that make one batch: of one shape, at most `batch_size`.

    Pictures that could not be read are in none.
    """
    places: dict[tuple[int, ...], list[int]] = {}
    for place, picture in enumerate(pictures):
        if not picture.error:
            places.setdefault(tuple(picture.pixels.shape), []).append(place)
    for same in places.values():
        yield from in_lists(same, batch_size)


def _read(
    numbered: tuple[int, Source], at_least: Callable[[tuple[int, int]], tuple[int, int]] | None
) -> ReadPicture:
    number, source = numbered
    name = name_of_picture(source, number)
    # A drawing made later does not fetch again.
    source = fetch(source)
    pixels, size = read_with_size(source, name=name, at_least=at_least)
    return ReadPicture(source, name, size, pixels)
