"""Mosaics of whole pictures: each fits into its cell of a canvas, next to a seam.

Pictures keep their shape, so cells have a grey rest. Everything random is drawn first, so that the
rest is a pure function. Sizes are (height, width), boxes XYXY in pixels.

Letters: n rows and columns of the canvas.
Source: the mosaics of CLIM's detectors, arXiv 2312.11376, section 3.3.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clim_data.pixels.boxes import inside_image
from clim_data.pixels.jitter import resize_bilinear

SIDES = (2, 3, 4)
GREY = 114

# Place of a picture in a larger cell: at the start, at the end, or random.
START, END, DRAWN = "start", "end", "drawn"
COLUMNS = {2: (END, START), 3: (END, DRAWN, START), 4: (END, START, END, START)}
ROWS = {2: (END, START), 3: (END, DRAWN, START), 4: (DRAWN,) * 4}


@dataclass(frozen=True)
class CanvasDraw:
    """The random numbers of one canvas.

    Attributes:
        side: n; 2, 3 or 4.
        at_top: n values, whether the pictures of a row stand at the top of their cells. Only rows
            that are free read it: the middle one of three, and all of four.
        shift: n values from 0 to 1, how far right the middle picture of a row of three stands.

    Raises:
        ValueError: another side, or not one value for each row.
    """

    side: int
    at_top: tuple[bool, ...]
    shift: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise ValueError(f"side={self.side}: a canvas has one of {SIDES} rows and columns")
        if not len(self.at_top) == len(self.shift) == self.side:
            raise ValueError(
                f"{len(self.at_top)} and {len(self.shift)} draws for {self.side} rows: give one of "
                "each per row"
            )

    @classmethod
    def of(cls, rng: random.Random) -> "CanvasDraw":
        """Draw a side, all equally likely, and the places of its pictures."""
        side = SIDES[int(rng.random() * len(SIDES))]
        tops = tuple(rng.random() < 0.5 for _ in range(side))
        return cls(side, tops, tuple(rng.random() for _ in range(side)))


def fitted_factor(size: tuple[int, int], cell: tuple[int, int]) -> float:
    """Return by how much a picture grows or shrinks to fit a cell."""
    return min(cell[1] / size[1], cell[0] / size[0])


def lay_canvas(
    pictures: Sequence[Tensor], cell: tuple[int, int], draw: CanvasDraw
) -> tuple[Tensor, Tensor]:
    """Put pictures on a canvas, row by row.

    Args:
        pictures: n * n uint8 tensors (3, height, width) of any sizes.
        cell: size of a cell.
        draw: the random numbers.

    Returns:
        The canvas, uint8 (3, n * height, n * width), and the boxes of the pictures, float32
        (n * n, 4).

    Raises:
        ValueError: another number of pictures.
    """
    side = draw.side
    if len(pictures) != side * side:
        raise ValueError(f"{len(pictures)} pictures for a canvas of {side * side} cells")
    canvas = torch.full((3, side * cell[0], side * cell[1]), GREY, dtype=torch.uint8)
    boxes = torch.empty(side * side, 4)

    for place, picture in enumerate(pictures):
        row, column = divmod(place, side)
        original = (picture.shape[1], picture.shape[2])
        factor = fitted_factor(original, cell)
        size = (max(int(original[0] * factor), 1), max(int(original[1] * factor), 1))

        start = 0.0 if draw.at_top[row] else 1.0
        top = row * cell[0] + _offset(ROWS[side][row], cell[0] - size[0], start)
        left = column * cell[1] + _offset(COLUMNS[side][column], cell[1] - size[1], draw.shift[row])
        canvas[:, top : top + size[0], left : left + size[1]] = resize_bilinear(picture, size)
        # The box is the picture before its size is cut to whole pixels.
        height, width = original[0] * factor, original[1] * factor
        boxes[place] = torch.tensor([left, top, left + width, top + height])
    return canvas, inside_image(boxes, (canvas.shape[1], canvas.shape[2]))


def _offset(where: str, spare: int, drawn: float) -> int:
    """Return how many of the spare pixels are before a picture."""
    if where == START:
        return 0
    if where == END:
        return spare
    return min(int(drawn * (spare + 1)), spare)
