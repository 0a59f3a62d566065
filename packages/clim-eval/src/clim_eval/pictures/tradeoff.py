"""The gain of a training against its cost, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING

from clim_eval.pictures.style import INK, PALETTE, styled_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = dict[str, tuple[float, float]]  # label -> (x, y)


def tradeoff_figure(
    curves: Mapping[str, Mapping[str, tuple[float, float]]],
    *,
    x_name: str,
    y_name: str,
    chosen: Mapping[str, Sequence[str]] | None = None,
    errors: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    title: str = "",
) -> Figure:
    """Draw one accuracy against another: a line of points for each curve, fractions shown in
    percent. The ends of a curve and the points in `chosen` have labels.

    Args:
        curves: {curve: {label: (x, y)}}, fractions in [0, 1], in the order of the line.
        x_name, y_name: metrics of the axes.
        chosen: {curve: labels of the points that get a ring}; the legend says "not beaten by any
            other".
        errors: {curve: {label: half lengths of the error bars along x and y}}, fractions; a point
            without has none.
        title: a line above the picture.

    A point with nan has no place: the labels of such points are listed under the picture.

    Raises:
        ValueError: no point can be drawn.
    """
    drawn, missing = _places(curves)
    if not any(drawn.values()):
        raise ValueError(
            "no point has both values: pass {curve: {label: (x, y)}} with measured fractions"
        )

    with styled_figure(6.4, 4.8) as figure:
        axis = figure.subplots()
        for index, (curve, points) in enumerate(drawn.items()):
            color = PALETTE[index % len(PALETTE)]
            _draw_curve(axis, points, label=curve, color=color)
            _draw_errors(axis, points, (errors or {}).get(curve, {}), color=color)
        _write_labels(axis, drawn, chosen or {})
        _draw_rings(axis, drawn, chosen or {})

        absent = f"\n(not measured: {', '.join(missing)})" if missing else ""
        axis.set_xlabel(f"{x_name}, %{absent}")
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


def _places(
    curves: Mapping[str, Mapping[str, tuple[float, float]]],
) -> tuple[dict[str, Points], list[str]]:
    """Return the points of each curve in percent, and the labels of those without a place."""
    drawn: dict[str, Points] = {}
    missing = []
    for curve, points in curves.items():
        drawn[curve] = {}
        for label, (x, y) in points.items():
            if isnan(x) or isnan(y):
                missing.append(f"{curve} {label}".strip())
            else:
                drawn[curve][label] = (100 * x, 100 * y)
    return drawn, missing


def words_of(metric: str) -> str:
    """Return the label of an axis for the key of a metric; an unknown key is its own label."""
    evaluator, _, rest = metric.partition(".")
    parts = rest.split(".")
    if evaluator == "regions" and len(parts) == 3:
        kinds = {"thing": "things", "stuff": "stuff", "all": "all regions"}
        place = parts[0].replace("_", ", ")
        top = parts[2].replace("mAcc", "top-")
        return f"naming regions, {top} ({place} of {kinds.get(parts[1], parts[1])})"
    if evaluator == "retrieval" and len(parts) == 2:
        ways = {"t2i": "text to image", "i2t": "image to text"}
        return f"retrieval, {ways.get(parts[0], parts[0])}, {parts[1]}"
    if evaluator == "zeroshot" and len(parts) == 1:
        return f"naming whole images, {rest.replace('top', 'top-')}"
    return metric


def _draw_curve(axis: Axes, points: Points, *, label: str, color: str) -> None:
    """Draw a line through points."""
    xs = [x for x, _ in points.values()]
    ys = [y for _, y in points.values()]
    axis.plot(xs, ys, "-o", color=color, markersize=5, linewidth=1.2, label=label or None)


def _draw_errors(
    axis: Axes, points: Points, errors: Mapping[str, tuple[float, float]], *, color: str
) -> None:
    """Draw error bars both ways; they are given as fractions."""
    named = [label for label in points if label in errors]
    if not named:
        return
    axis.errorbar(
        [points[label][0] for label in named],
        [points[label][1] for label in named],
        xerr=[100 * errors[label][0] for label in named],
        yerr=[100 * errors[label][1] for label in named],
        fmt="none",
        ecolor=color,
        elinewidth=0.9,
        capsize=2,
    )


def _is_near(place: tuple[float, float], others: Sequence[tuple[float, float]]) -> bool:
    """Tell whether another point lies within one percent."""
    return any(abs(place[0] - x) < 1 and abs(place[1] - y) < 1 for x, y in others)


def _write_labels(
    axis: Axes, drawn: Mapping[str, Points], chosen: Mapping[str, Sequence[str]]
) -> None:
    """Label the ends of each curve and its chosen points."""
    written: list[tuple[float, float]] = []
    for curve, points in drawn.items():
        ends = [*list(points)[:1], *list(points)[-1:]]
        for name in dict.fromkeys([*ends, *chosen.get(curve, ())]):
            # Points at one place share a label.
            if name in points and not _is_near(points[name], written):
                place = points[name]
                axis.annotate(name, place, xytext=(6, 5), textcoords="offset points", fontsize=8)
                written.append(place)


def _draw_rings(
    axis: Axes, drawn: Mapping[str, Points], chosen: Mapping[str, Sequence[str]]
) -> None:
    """Draw a ring around every chosen point that has a place."""
    rings = []
    for curve, labels in chosen.items():
        rings += [drawn[curve][label] for label in labels if label in drawn[curve]]
    if not rings:
        return

    axis.scatter(
        [x for x, _ in rings],
        [y for _, y in rings],
        s=110,
        facecolors="none",
        edgecolors=INK,
        linewidths=1.2,
        label="not beaten by any other",
    )
