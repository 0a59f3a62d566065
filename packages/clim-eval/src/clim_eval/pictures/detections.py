"""The detections in a picture: boxes, masks and names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from clim_eval.pictures.similarity import check_pixels
from clim_eval.pictures.style import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Longest side of a picture in inches.
LONGEST = 8.0
# Opacity of a mask's colour over the picture.
TINT = 0.45
# Shortest side in inches: a label has room on it.
SHORTEST = 0.3


def detection_figure(
    image: np.ndarray | Tensor,
    boxes: np.ndarray | Tensor,
    labels: Sequence[int],
    names: Sequence[str],
    *,
    scores: Sequence[float] | None = None,
    masks: np.ndarray | Tensor | None = None,
) -> Figure:
    """Draw boxes with their names, and masks, into a picture.

    Every class has a colour; the seven colours repeat.

    Args:
        image: (H, W, 3) array or (3, H, W) tensor, uint8.
        boxes: (n, 4) XYXY in pixels of the image.
        labels: n indices into `names`.
        names: of the classes.
        scores: n numbers that stand behind the names.
        masks: bool (n, H, W).

    Raises:
        ValueError: the numbers of boxes, labels, scores or masks differ.
    """
    from matplotlib.figure import Figure

    from clim_eval.pictures.inner_label import write_label

    pixels, corners = check_pixels(image), np.asarray(boxes, dtype=float).reshape(-1, 4)
    for what, values in (("labels", labels), ("scores", scores), ("masks", masks)):
        if values is not None and len(values) != len(corners):
            raise ValueError(f"{len(values)} {what} for {len(corners)} boxes: pass one for each")

    height, width = pixels.shape[:2]
    # Large boxes first, so that they cover no small one.
    order = np.argsort(-_areas(corners), kind="stable").tolist()
    colors = [PALETTE[label % len(PALETTE)] for label in labels]
    if masks is not None:
        pixels = _tint(pixels, np.asarray(masks, dtype=bool), colors, order)

    inches = LONGEST / max(height, width)
    sides = (max(SHORTEST, width * inches), max(SHORTEST, height * inches))
    figure = Figure(figsize=sides)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.imshow(pixels, extent=(0, width, height, 0))
    axis.set_axis_off()
    for number in order:
        _draw_box(axis, corners[number], colors[number])
    # Names after all boxes, the best ones on top.
    for number in reversed(range(len(corners))):
        text = names[labels[number]]
        if scores is not None:
            text += f" {scores[number]:.2f}"
        write_label(axis, corners[number], text, colors[number], fontsize=9, pad=1.5)

    axis.set_xlim(0, width)
    axis.set_ylim(height, 0)
    return figure


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _tint(
    pixels: np.ndarray, masks: np.ndarray, colors: Sequence[str], order: Sequence[int]
) -> np.ndarray:
    """Colour the pixels under the masks."""
    from matplotlib.colors import to_rgb

    blended = pixels.astype(np.float32)
    for number in order:
        color = 255 * np.array(to_rgb(colors[number]), dtype=np.float32)
        blended[masks[number]] = (1 - TINT) * pixels[masks[number]] + TINT * color
    return blended.round().astype(np.uint8)


def _draw_box(axis: Axes, box: np.ndarray, color: str) -> None:
    from matplotlib.patches import Rectangle

    left, top, right, bottom = box
    # A white line under the coloured one shows on any ground.
    for edge, thickness in (("white", 3.5), (color, 2.0)):
        corner, sides = (left, top), (right - left, bottom - top)
        axis.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=edge, linewidth=thickness))
