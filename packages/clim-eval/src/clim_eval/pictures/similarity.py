"""Similarity maps of texts on one image, of one model or of several. Matplotlib is imported when
drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from clim_eval.pictures.maps import Marks, Scale, draw_map, draw_scale
from clim_eval.pictures.named_boxes import NamedBoxes, draw_named_boxes
from clim_eval.pictures.style import PAGE, SIDE, styled_figure
from clim_eval.pictures.texts import text_options

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = np.ndarray | Tensor

# Inches that the title of a panel needs.
NARROWEST = 1.1


@dataclass(frozen=True)
class MapRow:
    """The maps of one model.

    Args:
        maps: (N, h, w) cosines on a grid that covers the whole image.
        peaks: (N, 2) XY in [0, 1], drawn as dots.
        boxes: (N, 4) XYXY in [0, 1], drawn as frames; a row of nan has none.
        masks: (N, h, w) booleans, drawn as outlines.
        named: boxes and their names, drawn into the image of the row.
    """

    maps: Values
    peaks: Values | None = None
    boxes: Values | None = None
    masks: Values | None = None
    named: NamedBoxes | None = None

    def marks(self, index: int) -> Marks:
        """Return the marks on one map."""
        chosen = (
            None if values is None else np.asarray(values[index])
            for values in (self.peaks, self.boxes, self.masks)
        )
        return Marks(*chosen)


def similarity_figure(
    image: Values,
    maps: Values,
    texts: Sequence[str],
    *,
    boxes: Values | None = None,
    peaks: Values | None = None,
    scores: Sequence[float] | None = None,
    title: str = "",
    columns: int = 4,
) -> Figure:
    """Draw the image, and for each text its similarity map. All maps have one hue and one scale.

    Args:
        image: (H, W, 3) array or (3, H, W) tensor, uint8.
        maps, boxes, peaks: as in `MapRow`.
        texts: N texts.
        scores: N cosines, written under the panels.
        title: a line above everything.
        columns: panels per row.

    Raises:
        ValueError: the numbers of maps, texts, boxes, peaks or scores differ.
    """
    row = MapRow(maps, peaks=peaks, boxes=boxes)
    return row_figure(image, row, texts, scores=scores, title=title, columns=columns)


def row_figure(
    image: Values,
    row: MapRow,
    texts: Sequence[str],
    *,
    scores: Sequence[float] | None = None,
    title: str = "",
    columns: int = 4,
) -> Figure:
    """Draw the maps of one model; see `similarity_figure`."""
    pixels = check_pixels(image)
    _check_counts(row, len(texts), scores)
    panels = len(texts) + 1
    columns = min(columns, panels)
    rows = -(-panels // columns)
    wide, high = panel_size(pixels, columns)

    size = (columns * column_width(wide) + 0.8, rows * (high + 0.6) + 0.4 * bool(title))
    with styled_figure(*size) as figure:
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        draw_named_boxes(axes[0], pixels, row.named, title="image")
        scale = Scale.of(np.asarray(row.maps))
        for index, text in enumerate(texts):
            axis = axes[index + 1]
            draw_map(axis, pixels, np.asarray(row.maps[index]), scale, row.marks(index))
            write_title(axis, text, wide)
            if scores is not None:
                axis.set_xlabel(f"cosine {scores[index]:.3f}", fontsize=9)

        _finish(figure, axes, panels, scale, title)
    return figure


def comparison_figure(
    image: Values, models: Mapping[str, MapRow], texts: Sequence[str], *, title: str = ""
) -> Figure:
    """Draw the maps of several models on one image: a row for each, all on one scale.

    Args:
        image: (H, W, 3) array or (3, H, W) tensor, uint8.
        models: name -> its maps.
        texts: N texts.

    Raises:
        ValueError: the numbers of maps, texts, boxes or masks differ, or there is no model.
    """
    if not models:
        raise ValueError("no models to compare: pass {name: MapRow}")
    pixels = check_pixels(image)
    for row in models.values():
        _check_counts(row, len(texts))

    columns = len(texts) + 1
    wide, high = panel_size(pixels, columns)
    size = (columns * column_width(wide) + 0.8, len(models) * (high + 0.5) + 0.4 * bool(title))
    with styled_figure(*size) as figure:
        grid = figure.subplots(len(models), columns, squeeze=False)
        scale = Scale.of(*(np.asarray(row.maps) for row in models.values()))
        for axes, (name, row) in zip(grid, models.items(), strict=True):
            draw_named_boxes(axes[0], pixels, row.named, title=name)
            for index, text in enumerate(texts):
                values = np.asarray(row.maps[index])
                draw_map(axes[index + 1], pixels, values, scale, row.marks(index))
                write_title(axes[index + 1], text, wide)

        _finish(figure, list(grid.flat), grid.size, scale, title)
    return figure


def panel_size(pixels: np.ndarray, columns: int) -> tuple[float, float]:
    """Return width and height of an image's panel in inches: as many as a page is wide."""
    height, width = pixels.shape[:2]
    side = min(SIDE, max(1.2, (PAGE - 0.8) / columns - 0.1))
    return side * min(1.0, width / height), side * min(1.0, height / width)


def column_width(wide: float) -> float:
    """Return inches of a column whose panels are `wide`: titles of narrow pictures need room."""
    return max(wide, NARROWEST) + 0.1


def write_title(axis: Axes, text: str, wide: float) -> None:
    """Write a text above a panel, on two lines at most."""
    letters = max(12, round(9 * wide))
    lines = "\n".join(wrap(text, width=letters, max_lines=2, placeholder=" …"))
    axis.set_title(lines, fontsize=11 if wide > 2 else 8, **text_options(lines))


def _finish(figure: Figure, axes: list[Axes], panels: int, scale: Scale, title: str) -> None:
    """Take off ticks and empty panels, add the scale and the title."""
    for number, axis in enumerate(axes):
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_visible(number < panels)
    draw_scale(axes, scale)
    if title:
        figure.suptitle(title, fontweight="bold", fontsize=11, **text_options(title))


def _check_counts(row: MapRow, texts: int, scores: Sized | None = None) -> None:
    given: dict[str, Sized | None] = {
        "maps": row.maps,
        "boxes": row.boxes,
        "peaks": row.peaks,
        "masks": row.masks,
        "scores": scores,
    }
    for name, values in given.items():
        if values is not None and len(values) != texts:
            raise ValueError(f"{len(values)} {name} for {texts} texts: pass one for each text")


def check_pixels(image: Values) -> np.ndarray:
    """Return an image as uint8 (H, W, 3).

    Raises:
        ValueError: another shape or type.
    """
    array = np.asarray(image)
    if isinstance(image, Tensor):
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError(
            f"image of shape {array.shape} and type {array.dtype}: pass a uint8 (H, W, 3) array or "
            "(3, H, W) tensor"
        )
    return array
