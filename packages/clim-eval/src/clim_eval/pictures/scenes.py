"""Scenes as several models see them: their named boxes, and the map of one word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clim_eval.pictures.maps import Marks, Scale, draw_map, draw_scale
from clim_eval.pictures.named_boxes import NamedBoxes, draw_named_boxes
from clim_eval.pictures.similarity import Values, check_pixels, column_width, panel_size
from clim_eval.pictures.style import styled_figure
from clim_eval.pictures.texts import text_options

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class SceneView:
    """The view of one model on a scene.

    Args:
        named: the scene's boxes and the words they are called by.
        values: (h, w) similarity with one word.
        peak: (2,) XY in [0, 1], where that is largest.
    """

    named: NamedBoxes
    values: np.ndarray
    peak: np.ndarray


@dataclass(frozen=True)
class SceneRow:
    """A scene, and the views of several models on it.

    Args:
        image: (H, W, 3) array or (3, H, W) tensor, uint8.
        word: what the maps look for. box: (4,) XYXY in [0, 1], where it is.
        views: model -> how it sees the scene.
    """

    image: Values
    word: str
    box: np.ndarray
    views: Mapping[str, SceneView]


def scenes_figure(rows: Sequence[SceneRow], *, title: str = "") -> Figure:
    """Draw a row for each scene: the named boxes of every model, then the map of a word of every
    model. All maps have one scale; a dot is the peak, a frame the true box.

    Raises:
        ValueError: there is no scene.
    """
    if not rows:
        raise ValueError("no scenes to draw: pass at least one SceneRow")

    models = list(rows[0].views)
    columns = 2 * len(models)
    wide, high = panel_size(check_pixels(rows[0].image), columns)
    size = (columns * column_width(wide) + 0.8, len(rows) * (high + 0.3) + 0.4)
    with styled_figure(*size) as figure:
        grid = figure.subplots(len(rows), columns, squeeze=False)
        scale = Scale.of(*(view.values for row in rows for view in row.views.values()))
        for axes, row in zip(grid, rows, strict=True):
            pixels = check_pixels(row.image)
            for number, model in enumerate(models):
                view, map_axis = row.views[model], axes[len(models) + number]
                draw_named_boxes(axes[number], pixels, view.named, title=model)
                draw_map(map_axis, pixels, view.values, scale, Marks(view.peak, row.box))
                told = f"{model}: “{row.word}”"
                map_axis.set_title(told, fontweight="normal", fontsize=8, **text_options(told))

        for axis in grid.flat:
            axis.set_xticks([])
            axis.set_yticks([])
        draw_scale(list(grid.flat), scale)
        if title:
            figure.suptitle(title, fontweight="bold", fontsize=11, **text_options(title))
    return figure


def named_boxes_figure(
    images: Sequence[Values],
    views: Mapping[str, Sequence[NamedBoxes]],
    *,
    verb: str = "named",
    title: str = "",
) -> Figure:
    """Draw a row for each image, with the named boxes of every model.

    Args:
        images: (H, W, 3) arrays or (3, H, W) tensors, uint8.
        views: model -> its boxes, for each image.
        verb: what the right boxes are, in "3 of 5 named".

    Raises:
        ValueError: there is no image, or a model has another number of views.
    """
    if not images:
        raise ValueError("no images to draw: pass at least one")

    drawn = [check_pixels(image) for image in images]
    wide, high = panel_size(drawn[0], max(4, len(views)))
    size = (len(views) * (wide + 0.1), len(images) * (high + 0.35) + 0.4)
    with styled_figure(*size) as figure:
        grid = figure.subplots(len(images), len(views), squeeze=False)
        for column, (model, named) in enumerate(views.items()):
            for axis, pixels, one in zip(grid[:, column], drawn, named, strict=True):
                draw_named_boxes(axis, pixels, one, title=model, verb=verb)
                axis.set_xticks([])
                axis.set_yticks([])
        if title:
            figure.suptitle(title, fontweight="bold", fontsize=11, **text_options(title))
    return figure
