"""A reliability plot: accuracy against score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clim_eval.pictures import INK, PALETTE, STYLE

if TYPE_CHECKING:
    from clim_eval.metrics import Reliability
    from matplotlib.figure import Figure


def reliability_figure(bins: Reliability, *, title: str = "") -> Figure:
    """Draw bins of scores: the mean score of each on the x axis, its accuracy on the y axis. On the
    diagonal, scores are probabilities."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(STYLE):
        figure = Figure(figsize=(5, 5))
        figure.set_layout_engine("constrained")
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=":")
        axis.plot(bins.confidence, bins.accuracy, color=PALETTE[0], marker="o")
        axis.set_xlim(-0.02, 1.02)
        axis.set_ylim(-0.02, 1.02)
        axis.set_xlabel("score")
        axis.set_ylabel("share of phrases that are there, IoU at least 0.5")
        axis.set_title(f"{title or 'Scores'}: calibration error {100 * bins.error:.1f} %")
    return figure
