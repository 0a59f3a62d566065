"""Attention of phrases to an image as one picture: the mean, each layer, and the heads that are
focused most. Matplotlib is imported when drawing.

Letters: N phrases, L layers, K heads, h w the grid of a map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from clim_eval.pictures import SIDE, STYLE, Scale, draw_map
from PIL import Image

from flmm.pictures.labels import title_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

COLUMNS = 8


class DrawnMaps(Protocol):
    """The input of the picture, such as `flmm.PhraseMaps`, which explains the fields."""

    @property
    def phrases(self) -> tuple[str, ...]: ...

    @property
    def mean(self) -> Tensor: ...

    @property
    def layers(self) -> Tensor: ...

    @property
    def focused(self) -> Tensor: ...

    @property
    def heads(self) -> Tensor: ...


def attention_figure(image: Image.Image, maps: DrawnMaps) -> Figure:
    """Draw for each phrase the image, the mean over all heads, the heads that are focused most, and
    the mean of each layer.

    Each map is divided by its highest value; then all panels have one hue and one scale. Shapes can
    be compared, amounts cannot.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    panels = [_panels(maps, number) for number in range(len(maps.phrases))]
    drawn = [values for of_phrase in panels for _, values in of_phrase if values is not None]
    scale = Scale.of(*drawn)
    rows = [math.ceil(len(of_phrase) / COLUMNS) for of_phrase in panels]
    height = SIDE / 2 * image.height / image.width
    with style.context(STYLE):
        size = (SIDE / 2 * COLUMNS, max(height, SIDE / 6) * sum(rows) + 0.35 * sum(rows))
        figure = Figure(figsize=size)
        figure.set_layout_engine("constrained")
        parts = figure.subfigures(len(panels), 1, height_ratios=rows, squeeze=False)[:, 0]
        for part, phrase, of_phrase, count in zip(parts, maps.phrases, panels, rows, strict=True):
            part.suptitle(title_lines(phrase, 100), fontsize=11, fontweight="bold")
            axes = list(part.subplots(count, COLUMNS, squeeze=False).flat)
            for axis, (title, values) in zip(axes[: len(of_phrase)], of_phrase, strict=True):
                _draw(axis, image, title, values, scale)
            for axis in axes[len(of_phrase) :]:
                axis.axis("off")
    return figure


def _panels(maps: DrawnMaps, number: int) -> Sequence[tuple[str, np.ndarray | None]]:
    """Title and map (h, w) of the panels of a phrase; None for the image alone."""
    panels: list[tuple[str, np.ndarray | None]] = [("image", None)]
    panels.append(("all heads", _relative(maps.mean[number])))
    for (layer, head), values in zip(
        maps.heads[number].tolist(), maps.focused[number], strict=True
    ):
        panels.append((f"layer {layer}, head {head}", _relative(values)))
    panels += [("", None)] * (-len(panels) % COLUMNS)
    for layer, values in enumerate(maps.layers[number]):
        panels.append((f"layer {layer}", _relative(values)))
    return panels


def _relative(values: Tensor) -> np.ndarray:
    """Divide a map by its highest value."""
    return np.asarray(values / values.max().clamp(min=1e-12))


def _draw(
    axis: Axes, image: Image.Image, title: str, values: np.ndarray | None, scale: Scale
) -> None:
    """Draw a map over the image in grey; nothing for a panel without a title."""
    axis.axis("off")
    if not title:
        return
    axis.set_title(title, fontsize=8, fontweight="normal")
    if values is None:
        axis.imshow(image)
    else:
        draw_map(axis, np.asarray(image.convert("RGB")), values, scale)
