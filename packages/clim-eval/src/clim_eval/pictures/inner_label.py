"""Names of boxes that stay inside a picture of any size. Imports matplotlib."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from clim_eval.pictures.texts import readable_on, text_options

MORE = "…"


class InnerLabel(Text):
    """A label that is shortened to the width of its axes and moved inside them.

    How wide letters are, and where the axes are, is known only when a figure is drawn.

    Attributes:
        anchor: (x, y) in data units, where the label is if there is room.
        whole: the text before it is shortened.
        pad: points between the letters and the edge of the label.
    """

    def __init__(self, x: float, y: float, text: str, *, pad: float, **options: Any) -> None:
        super().__init__(x, y, text, **options)
        self.anchor = (x, y)
        self.whole = text
        self.pad = pad
        # Labels lie inside, so the layout of the figure need not make room for them.
        self.set_in_layout(False)

    def draw(self, renderer: RendererBase) -> None:
        """Draw the label where it fits."""
        self.fit(renderer)
        super().draw(renderer)

    def fit(self, renderer: RendererBase) -> None:
        """Shorten and move the label; a second call changes nothing."""
        if self.axes is None:
            return
        self.set_position(self.anchor)
        self.set_text(self.whole)
        pad = float(np.asarray(renderer.points_to_pixels(self.pad), dtype=float))
        frame = self.axes.bbox.padded(-pad)

        extent = self.get_window_extent(renderer)
        letters = len(self.whole)
        while extent.width > frame.width and letters > 1:
            # Letters differ in width: at least one fewer, at most as many as the mean suggests.
            letters = min(letters - 1, max(1, int(letters * frame.width / extent.width)))
            self.set_text(self.whole[: letters - 1].rstrip() + MORE)
            extent = self.get_window_extent(renderer)

        shift = [_shift(extent, frame, side) for side in (0, 1)]
        to_data = self.axes.transData
        place = to_data.transform(self.anchor) + shift
        x, y = to_data.inverted().transform(place)
        self.set_position((x, y))


def write_label(
    axis: Axes, box: Any, text: str, colour: str, *, fontsize: float, pad: float, **edge: Any
) -> InnerLabel:
    """Write a name above its box, or where the picture has room for it.

    Args:
        box: (4,) XYXY in data units of the axes.
        colour: ground of the label. edge: further options of the label's rectangle.
    """
    options = text_options(text)
    label = InnerLabel(float(box[0]), float(box[1]), text, pad=pad, **options)
    label.set(ha="left", va="bottom", fontsize=fontsize, color=readable_on(colour))
    label.set_bbox({"facecolor": colour, "edgecolor": "none", "pad": pad, **edge})
    axis.add_artist(label)
    return label


def _shift(extent: Bbox, frame: Bbox, side: int) -> float:
    """Return by how many pixels a label has to move along x (0) or y (1) to be in its frame.

    A label that is larger than the frame is put in its middle.
    """
    low, high = extent.min[side], extent.max[side]
    first, last = frame.min[side], frame.max[side]
    if high - low > last - first:
        return float((first + last - low - high) / 2)
    return float(max(first - low, 0) + min(last - high, 0))
