"""One similarity map over a grey picture, in the one hue that all maps have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clim_eval.pictures.style import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap

# The colour of the largest similarity; less similar is more transparent.
HUE = (0.0, 0.25, 0.60)
# Opacity of the largest similarity.
STRONGEST = 0.92


@dataclass(frozen=True)
class Scale:
    """The scale of a map: similarities up to `low` are transparent, from `high` on they have the
    full colour."""

    low: float
    high: float

    @classmethod
    def of(cls, *maps: np.ndarray) -> Scale:
        """Return one scale for all maps, so that the most similar third of them has colour."""
        values = np.concatenate([np.asarray(part, dtype=float).ravel() for part in maps])
        low, high = float(np.quantile(values, 2 / 3)), float(values.max())
        return cls(low, max(high, low + 1e-6))


@dataclass(frozen=True)
class Marks:
    """The marks on a map.

    peak: (x, y) in [0, 1], a dot. box: (4,) XYXY in [0, 1]. mask: bool (h, w), outlined.
    """

    peak: np.ndarray | None = None
    box: np.ndarray | None = None
    mask: np.ndarray | None = None


def draw_map(
    axis: Axes, image: np.ndarray, values: np.ndarray, scale: Scale, marks: Marks | None = None
) -> None:
    """Draw a map (h, w) over its image (H, W, 3) uint8, with its marks."""
    height, width = image.shape[:2]
    marks = marks or Marks()
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)

    # A light grey picture under the map, so that colour means similarity only.
    grey = 110 + 0.57 * (image @ np.array([0.299, 0.587, 0.114]))
    axis.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=extent)
    axis.imshow(
        values,
        cmap=hue(),
        vmin=scale.low,
        vmax=scale.high,
        extent=extent,
        interpolation="bilinear",
    )
    if marks.mask is not None and marks.mask.any():
        _outline(axis, marks.mask, width / marks.mask.shape[1], height / marks.mask.shape[0])
    if marks.box is not None and np.isfinite(marks.box).all():
        corners = np.asarray(marks.box) * np.array([width, height, width, height]) - 0.5
        draw_frame(axis, corners, "white")
    if marks.peak is not None:
        x, y = np.asarray(marks.peak) * np.array([width, height]) - 0.5
        axis.plot(x, y, "o", markersize=5, color="white", markeredgecolor=INK, markeredgewidth=1.2)
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)


def hue() -> ListedColormap:
    """Return the colours of maps: one hue, from transparent to nearly opaque."""
    from matplotlib.colors import ListedColormap

    opacity = STRONGEST * np.linspace(0, 1, 256)
    return ListedColormap(np.column_stack([np.tile(HUE, (256, 1)), opacity]))


def draw_scale(axes: list[Axes], scale: Scale) -> None:
    """Draw the one scale of a figure's maps at their right."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure = axes[0].figure
    drawn = ScalarMappable(Normalize(scale.low, scale.high), hue())
    bar = figure.colorbar(drawn, ax=axes, shrink=0.6, aspect=25, pad=0.01)
    bar.ax.tick_params(labelsize=7, length=2)
    bar.ax.locator_params(nbins=4)
    bar.set_label("cosine", fontsize=8)
    bar.outline.set_visible(False)


def draw_frame(axis: Axes, corners: np.ndarray, color: str) -> None:
    """Draw a box, (4,) XYXY in the pixels of the image."""
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = corners
    for edge, thickness in ((INK, 2.2), (color, 1.2)):  # readable on any ground
        frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, clip_on=False)
        frame.set_edgecolor(edge)
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
    for color, thickness in ((INK, 3), ("white", 1.5)):
        axis.add_collection(
            LineCollection(list(scaled), colors=color, linewidths=thickness, capstyle="round")
        )
