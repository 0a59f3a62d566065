"""Crops of an image for self-distillation: random grids, windows around proposals, and cutting them
out.

CLIPSelf (arXiv 2310.01403): a teacher sees crops of the image, a student the same regions in the
whole image.
"""

import random
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from clim_data.pixels import transforms as T

MULTI_SCALES = {1024: (320, 640, 896, 1024), 896: (336, 448, 672, 896)}
"""Sides of the student's image that the multi-scale option of CLIPSelf draws from, for each side of
its recipes."""

Window = tuple[float, float, float, float]


def grid_choices(max_split: int) -> list[tuple[int, int]]:
    """List the grids (rows m, columns n) up to `max_split` with m / 2 <= n <= 2 m.

    There are 24 for 6, and 144 for 16.
    """
    sides = range(1, max_split + 1)
    return [
        (rows, columns)
        for rows in sides
        for columns in sides
        if rows <= 2 * columns and columns <= 2 * rows
    ]


def grid_boxes(rows: int, columns: int) -> Tensor:
    """Return the cells of a grid, row by row: (rows * columns, 4) float32.

    Cells are XYXY in [0, 1] of the image.
    """
    down, across = torch.linspace(0, 1, rows + 1), torch.linspace(0, 1, columns + 1)
    top, left = torch.meshgrid(down[:-1], across[:-1], indexing="ij")
    bottom, right = torch.meshgrid(down[1:], across[1:], indexing="ij")
    return torch.stack([left, top, right, bottom], dim=-1).reshape(-1, 4)


def draw_cells(rng: random.Random, max_split: int, max_cells: int) -> Tensor:
    """Draw a grid and return at most `max_cells` of its cells, in random order.

    The result has the shape (n, 4); see `grid_boxes`.
    """
    choices = grid_choices(max_split)
    cells = grid_boxes(*choices[int(rng.random() * len(choices))])
    return cells[draw_order(rng, len(cells))[:max_cells]]


def draw_order(rng: random.Random, n: int) -> list[int]:
    """Draw a permutation of 0..n-1."""
    order = list(range(n))
    rng.shuffle(order)
    return order


def crop_window(box: Sequence[float], size: tuple[int, int], context: float) -> Window:
    """Return the window `context` times as large as a box, around its centre: XYXY in pixels.

    It is clipped to the image of `size` = (height, width).
    """
    x0, y0, x1, y1 = box
    centre_x, centre_y = (x0 + x1) / 2, (y0 + y1) / 2
    half_w, half_h = (x1 - x0) * context / 2, (y1 - y0) * context / 2
    height, width = size
    left, top = max(0.0, centre_x - half_w), max(0.0, centre_y - half_h)
    return left, top, min(float(width), centre_x + half_w), min(float(height), centre_y + half_h)


def cut_crops(picture: T.Picture, windows: Sequence[Window], crop_px: int) -> Tensor:
    """Cut windows out of one image, each letterboxed around its centre: uint8 (n, 3, crop_px,
    crop_px).

    The windows are XYXY in pixels of `picture`, a PIL image or a tensor (see
    `clim_data.pixels.transforms`). Those of a tensor that have one size are resized by one call.
    """
    crops = torch.zeros(len(windows), crop_px, crop_px, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    cuts = [T.crop(picture, window) for window in windows]
    for place, cut in enumerate(cuts):
        groups[T.size_of(cut)].append(place)

    for cut_size, places in groups.items():
        size, top, left = T.centred_place(*cut_size, crop_px)
        resized = _resize_cuts([cuts[place] for place in places], size)
        for place, crop in zip(places, resized, strict=True):
            crops[place, :, top : top + size[0], left : left + size[1]] = crop
    return crops


def _resize_cuts(cuts: Sequence[T.Picture], size: tuple[int, int]) -> Sequence[Tensor] | Tensor:
    """Resize cuts of one size to (height, width)."""
    tensors = [cut for cut in cuts if isinstance(cut, Tensor)]
    if not tensors:
        return [T.to_pixels(T.resize(cut, size)) for cut in cuts]

    # Stacked as they lie in memory, channels last, which the resizer is fastest on.
    stacked = torch.stack([cut.permute(1, 2, 0) for cut in tensors]).permute(0, 3, 1, 2)
    return T.to_pixels(T.resize(stacked, size))


def enough_pixels(
    size: tuple[int, int], windows: Sequence[Window], *, image_px: int, crop_px: int
) -> tuple[float, float] | None:
    """Return the (width, height) at which decoding an image enlarges nothing.

    `size` is (height, width) of the stored image. None when every pixel is wanted: a crop, or the
    letterboxed image, is at least as large as its source.
    """
    wanted = [image_px / max(size)]
    wanted += [
        crop_px / max(right - left, bottom - top, 1.0) for left, top, right, bottom in windows
    ]
    factor = max(wanted)
    return (size[1] * factor, size[0] * factor) if factor < 1 else None
