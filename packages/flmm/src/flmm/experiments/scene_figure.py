"""The quick start's picture: scenes with the frozen LMM's words and attention, and the masks made
from them.

Letters: N phrases of a scene, H W its size in pixels, h w the grid of the LMM's attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
from clim_eval.pictures import INK, STYLE, Scale, draw_map, readable_on
from PIL import Image

from flmm.pictures.masks import colour_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PANEL = 1.9  # inches
DPI = 110


@dataclass(frozen=True)
class GroundedScene:
    """A row of the picture.

    phrases: N texts. said: the LMM's own description. attention: float (N, h, w), its mean
    attention to the image when it reads each phrase. truth: bool (N, H, W). before, after: logits
    (N, H, W) of untrained and trained heads.
    """

    image: Image.Image
    phrases: tuple[str, ...]
    said: str
    attention: np.ndarray
    truth: np.ndarray
    before: np.ndarray
    after: np.ndarray


def scenes_picture(scenes: Sequence[GroundedScene]) -> Figure:
    """Draw a row for each scene: true masks, a map of attention for each phrase, masks of untrained
    and of trained heads."""
    from matplotlib import style
    from matplotlib.figure import Figure

    most = max(len(scene.phrases) for scene in scenes)
    with style.context(STYLE):
        figure = Figure(figsize=((most + 3) * PANEL, len(scenes) * (PANEL + 0.45)), dpi=DPI)
        figure.set_layout_engine("constrained")
        axes = figure.subplots(len(scenes), most + 3, squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for row, scene in zip(axes, scenes):
            _masks(row[0], scene, np.where(scene.truth, 1.0, -1.0), title="true masks")
            row[0].text(0.5, -0.03, fill(f"LMM says: {scene.said}", 40), **_beneath(row[0]))
            for index, (axis, phrase) in enumerate(zip(row[1:], scene.phrases)):
                _attention(axis, scene, index, f"attention: {phrase}")
            _masks(row[-2], scene, scene.before, title="untrained heads", outlined=False)
            _masks(row[-1], scene, scene.after, title="trained heads")
            reached = f"mean IoU {100 * mean_iou(scene.after > 0, scene.truth):.0f} %"
            row[-1].text(0.5, -0.03, reached, **_beneath(row[-1]))
    return figure


def mean_iou(found: np.ndarray, truth: np.ndarray) -> float:
    """Of N masks bool (N, H, W) with the true ones; an empty union counts as found."""
    both, either = ((op(found, truth)).sum((1, 2)) for op in (np.logical_and, np.logical_or))
    return float(np.where(either > 0, both / np.maximum(either, 1), 1.0).mean())


def _beneath(axis: Axes) -> Mapping[str, object]:
    return {"transform": axis.transAxes, "ha": "center", "va": "top", "fontsize": 7, "color": INK}


def _masks(
    axis: Axes, scene: GroundedScene, logits: np.ndarray, *, title: str, outlined: bool = True
) -> None:
    """Draw filled masks with their phrases. Masks of speckles get no outlines, which would hide
    them."""
    height, width = scene.truth.shape[1:]
    axis.imshow(scene.image, interpolation="bicubic")
    rows, columns = (np.arange(-1, size + 1) for size in (height, width))
    for index, (mask, phrase) in enumerate(zip(logits, scene.phrases, strict=True)):
        if not (mask > 0).any():
            continue
        colour, framed = colour_of(index), np.pad(mask, 1, constant_values=mask.min())
        axis.contourf(
            columns, rows, framed, levels=[0, framed.max() + 1e-6], colors=[colour], alpha=0.5
        )
        if not outlined:
            continue
        axis.contour(columns, rows, framed, levels=[0], colors=["white"], linewidths=1)
        y, x = (float(places.mean()) for places in np.nonzero(mask > 0))
        box = {
            "boxstyle": "round,pad=0.15",
            "facecolor": colour,
            "edgecolor": "white",
            "alpha": 0.9,
        }
        axis.text(
            x,
            y,
            phrase,
            color=readable_on(colour),
            fontsize=6.5,
            ha="center",
            va="center",
            bbox=box,
            clip_on=True,
        )
    _frame(axis, title, width, height)


def _attention(axis: Axes, scene: GroundedScene, index: int, title: str) -> None:
    """Draw the attention of a phrase; all phrases of a scene share one scale."""
    height, width = scene.truth.shape[1:]
    pixels = np.asarray(scene.image.convert("RGB"))
    draw_map(axis, pixels, scene.attention[index], Scale.of(scene.attention))
    _frame(axis, title, width, height)


def _frame(axis: Axes, title: str, width: int, height: int) -> None:
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)
    axis.set_title(title, fontsize=7.5)
