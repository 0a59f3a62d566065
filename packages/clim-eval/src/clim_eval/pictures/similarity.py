"""Similarity maps of texts on images. Matplotlib is imported when drawing."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from clim_eval.pictures.style import SIDE, styled_figure
from clim_eval.pictures.texts import text_options

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


def similarity_figure(
    image: np.ndarray | Tensor,
    maps: np.ndarray | Tensor,
    texts: Sequence[str],
    *,
    boxes: np.ndarray | Tensor | None = None,
    masks: np.ndarray | Tensor | None = None,
    scores: Sequence[float] | None = None,
    title: str = "",
    columns: int = 4,
) -> Figure:
    """Draw the image, and for each text its similarity map with the best box or mask.

    Args:
        image: (H, W, 3) array or (3, H, W) tensor, uint8.
        maps: (N, h, w) cosines on a grid that covers the whole image. Each panel has its own colour
            scale, because the cosines of different texts have different levels; the bar beside it
            gives the values.
        texts: N texts.
        boxes: (N, 4) XYXY in [0, 1] of the image, drawn as rectangles.
        masks: (N, h, w) booleans, drawn as outlines.
        scores: N cosines, written under the panels.
        title: a line above everything.
        columns: panels per row.

    Raises ValueError when the numbers of maps, texts, boxes, masks or scores differ.
    """
    image, maps = check_pixels(image), np.asarray(maps, dtype=np.float32)
    _check_counts(len(texts), maps=maps, boxes=boxes, masks=masks, scores=scores)
    panels = len(texts) + 1
    columns = min(columns, panels)
    rows = -(-panels // columns)
    height, width = image.shape[:2]
    # Inches of a panel.
    wide, high = SIDE * min(1.0, width / height), SIDE * min(1.0, height / width)

    with styled_figure(columns * (wide + 0.75), rows * (high + 0.95) + 0.4 * bool(title)) as figure:
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        axes[0].imshow(image)
        axes[0].set_title("image", fontweight="normal")
        for index, text in enumerate(texts):
            axis = axes[index + 1]
            box = None if boxes is None else np.asarray(boxes[index])
            mask = None if masks is None else np.asarray(masks[index])
            _draw_map(axis, image, maps[index], box=box, mask=mask)

            letters = max(14, round(11 * wide))
            lines = "\n".join(wrap(text, width=letters, max_lines=2, placeholder=" …"))
            axis.set_title(lines, **text_options(lines))
            if scores is not None:
                axis.set_xlabel(f"cosine {scores[index]:.3f}", fontsize=9)

        for number, axis in enumerate(axes):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_visible(number < panels)
        if title:
            figure.suptitle(title, **text_options(title))
    return figure


def _check_counts(texts: int, **given: Sized | None) -> None:
    for name, values in given.items():
        if values is not None and len(values) != texts:
            raise ValueError(f"{len(values)} {name} for {texts} texts: pass one for each text")


def _draw_map(
    axis: Axes,
    image: np.ndarray,
    values: np.ndarray,
    *,
    box: np.ndarray | None,
    mask: np.ndarray | None,
) -> None:
    """Draw a map over its image, with the box (4,) XYXY in [0, 1] or the outline of the mask."""
    height, width = image.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    # A grey picture under the map, so that colour means similarity only.
    axis.imshow(
        image @ np.array([0.299, 0.587, 0.114]), cmap="gray", vmin=0, vmax=255, extent=extent
    )
    low, high = np.quantile(values, 0.02), values.max()
    high = max(high, low + 1e-6)
    # Weak similarity is also more transparent, so that the picture stays visible where nothing was
    # found.
    strength = np.clip((values - low) / (high - low), 0, 1)
    drawn = axis.imshow(
        values,
        cmap="turbo",
        vmin=low,
        vmax=high,
        alpha=0.25 + 0.5 * strength,
        extent=extent,
        interpolation="bilinear",
    )
    _draw_scale(axis, drawn, panel_width=SIDE * min(1.0, width / height))
    if mask is not None and mask.any():
        _outline(axis, mask, width / mask.shape[1], height / mask.shape[0])
    if box is not None:
        _draw_box(axis, box * np.array([width, height, width, height]) - 0.5)
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)


def _draw_scale(axis: Axes, drawn: AxesImage, *, panel_width: float) -> None:
    """Draw the colours of a map and their values right of it."""
    place = axis.inset_axes((1.025, 0, 0.12 / panel_width, 1))
    bar = axis.figure.colorbar(drawn, cax=place)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.ax.locator_params(nbins=4)
    if bar.solids is not None:
        bar.solids.set_alpha(1)  # the map is transparent, its scale is not
    bar.outline.set_visible(False)


def _draw_box(axis: Axes, corners: np.ndarray) -> None:
    """Draw a box, (4,) XYXY in the pixels of the image."""
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = corners
    for color, thickness in (("black", 4), ("white", 2)):  # readable on any ground
        frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, clip_on=False)
        frame.set_edgecolor(color)
        frame.set_linewidth(thickness)
        axis.add_patch(frame)


def _outline(axis: Axes, mask: np.ndarray, step_x: float, step_y: float) -> None:
    """Draw the edges between cells inside and outside of a mask on the grid."""
    from matplotlib.collections import LineCollection

    padded = np.pad(mask.astype(bool), 1)
    lines = []
    for row, column in np.argwhere(padded[:, 1:] != padded[:, :-1]):  # vertical edges
        lines.append([(column, row - 1), (column, row)])
    for row, column in np.argwhere(padded[1:] != padded[:-1]):  # horizontal edges
        lines.append([(column - 1, row), (column, row)])
    scaled = np.array(lines, dtype=float) * (step_x, step_y) - 0.5
    for color, thickness in (("black", 3), ("white", 1.5)):
        axis.add_collection(
            LineCollection(list(scaled), colors=color, linewidths=thickness, capstyle="round")
        )


def check_pixels(image: np.ndarray | Tensor) -> np.ndarray:
    array = np.asarray(image)
    if isinstance(image, Tensor):
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError(
            f"image of shape {array.shape} and type {array.dtype}: pass a uint8 (H, W, 3) array or "
            "(3, H, W) tensor"
        )
    return array
