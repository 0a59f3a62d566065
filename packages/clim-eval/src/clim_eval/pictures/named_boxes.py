"""Boxes with their predicted names, marked as right or wrong where the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clim_eval.pictures.maps import draw_frame
from clim_eval.pictures.style import INK
from clim_eval.pictures.texts import text_options

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# By colour and by sign, for readers who cannot distinguish the colours.
RIGHT, WRONG = ("#009E73", "✓"), ("#D55E00", "✗")
UNKNOWN = ("#0072B2", "")
LETTERS = 16
# Points between a name and the edge of its label.
PADDING = 1.2


@dataclass(frozen=True)
class NamedBoxes:
    """n boxes and their names.

    Args:
        boxes: (n, 4) XYXY in [0, 1]; one without area is counted and not drawn.
        names: n words.
        right: whether each name is the true one; None where the truth is not known.

    Raises:
        ValueError: the numbers differ.
    """

    boxes: np.ndarray
    names: Sequence[str]
    right: Sequence[bool] | None = None

    def __post_init__(self) -> None:
        for what, values in (("names", self.names), ("answers", self.right)):
            if values is not None and len(values) != len(self.boxes):
                raise ValueError(f"{len(values)} {what} for {len(self.boxes)} boxes")

    def look(self, number: int) -> tuple[str, str]:
        """Return colour and sign of a box."""
        if self.right is None:
            return UNKNOWN
        return RIGHT if self.right[number] else WRONG


def draw_named_boxes(
    axis: Axes, pixels: np.ndarray, named: NamedBoxes | None, *, title: str, verb: str = "named"
) -> None:
    """Draw an image (H, W, 3) with named boxes; the title counts the right ones."""
    height, width = pixels.shape[:2]
    axis.imshow(pixels)
    if named is not None and named.right is not None:
        title = f"{title}: {sum(named.right)} of {len(named.right)} {verb}"
    axis.set_title(title, fontweight="normal", fontsize=8, **text_options(title))
    if named is None:
        return

    corners = np.asarray(named.boxes, dtype=float) * [width, height, width, height] - 0.5
    drawn = np.flatnonzero((corners[:, 2:] > corners[:, :2]).all(axis=1)).tolist()
    for number in drawn:
        draw_frame(axis, corners[number], named.look(number)[0])
    for number in drawn:
        _write_name(axis, corners[number], named, number)
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)


def _write_name(axis: Axes, box: np.ndarray, named: NamedBoxes, number: int) -> None:
    """Write a name above its box, inside the picture."""
    from clim_eval.pictures.inner_label import write_label

    colour, sign = named.look(number)
    name = named.names[number]
    name = name if len(name) <= LETTERS else name[: LETTERS - 1] + "…"
    text = f"{sign} {name}".strip()
    write_label(axis, box, text, colour, fontsize=5.5, pad=PADDING, edgecolor=INK, linewidth=0.3)
