"""Colours and style of all figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, distinct also without full colour vision; black and yellow are not used.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8A8A8A")

INK = "#222222"

SIDE = 3.3  # inches of a panel's longer side

PAGE = 9.3  # inches of a figure that is as wide as a page: 1,400 px

STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextmanager
def styled_figure(width: float, height: float) -> Iterator[Figure]:
    """Make an empty figure of a size in inches; inside the context, matplotlib has our style."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(STYLE):
        figure = Figure(figsize=(width, height))
        figure.set_layout_engine("constrained")
        yield figure
