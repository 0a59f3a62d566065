"""What a training gains against what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING

from clim_eval.pictures.style import INK, PALETTE, STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def tradeoff_figure(
    curves: Mapping[str, Mapping[str, tuple[float, float]]],
    *,
    x_name: str,
    y_name: str,
    chosen: Mapping[str, Sequence[str]] | None = None,
    title: str = "",
) -> Figure:
    """One accuracy against another, a line of labelled points for each curve, fractions shown in
    percent.

    Args:
        curves: {curve: {label: (x, y)}}, fractions in [0, 1], in the order of the line.
        x_name, y_name: what the axes are.
        chosen: {curve: labels of the points that get a ring}; the legend says "not beaten by any
            other".
        title: a line above the picture.

    A point with nan has no place: the labels of such points are listed under the picture. Raises
    ValueError when no point can be drawn.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    drawn = {
        curve: {
            label: (100 * x, 100 * y)
            for label, (x, y) in points.items()
            if not (isnan(x) or isnan(y))
        }
        for curve, points in curves.items()
    }
    missing = [
        f"{curve} {label}".strip()
        for curve in curves
        for label in curves[curve]
        if label not in drawn[curve]
    ]
    if not any(drawn.values()):
        raise ValueError(
            "no point has both values: pass {curve: {label: (x, y)}} with measured fractions"
        )
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.8))
        figure.set_layout_engine("constrained")
        axis = figure.subplots()
        for index, (curve, points) in enumerate(drawn.items()):
            color = PALETTE[index % len(PALETTE)]
            xs, ys = [x for x, _ in points.values()], [y for _, y in points.values()]
            axis.plot(xs, ys, "-o", color=color, markersize=5, linewidth=1.2, label=curve or None)
            for label, (x, y) in points.items():
                axis.annotate(label, (x, y), xytext=(6, 5), textcoords="offset points", fontsize=8)
        rings = [
            drawn[curve][label]
            for curve, labels in (chosen or {}).items()
            for label in labels
            if label in drawn[curve]
        ]
        if rings:
            axis.scatter(
                [x for x, _ in rings],
                [y for _, y in rings],
                s=110,
                facecolors="none",
                edgecolors=INK,
                linewidths=1.2,
                label="not beaten by any other",
            )
        axis.set_xlabel(
            f"{x_name}, %" + (f"\n(not measured: {', '.join(missing)})" if missing else "")
        )
        axis.set_ylabel(f"{y_name}, %")
        axis.margins(0.12)
        axis.grid(color="#e4e4e4")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(frameon=False, fontsize=9)
        if title:
            figure.suptitle(title, fontweight="bold", fontsize=11)
    return figure
