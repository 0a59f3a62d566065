"""Bars of accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from clim_eval.pictures.style import PALETTE, styled_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def accuracy_bars(
    arms: Mapping[str, Mapping[str, float | None]],
    *,
    metrics: Sequence[str] | None = None,
    names: Mapping[str, str] | None = None,
    errors: Mapping[str, Mapping[str, float]] | None = None,
    title: str = "",
) -> Figure:
    """Draw grouped bars: one group per metric, one colour per arm, fractions shown in percent.

    Args:
        arms: {arm: {metric: fraction in [0, 1]}}.
        metrics: which metrics, in order; default: the metrics of the first arm.
        names: what to write under a group instead of the metric's name.
        errors: {arm: {metric: half length of the error bar}}, fractions.
        title: a line above the bars.

    A metric that an arm does not have is left empty.

    Raises:
        ValueError: there is no arm, or no arm has one of the metrics.
    """
    if not arms:
        raise ValueError("no arms to draw: pass {arm: {metric: value}}")

    shown = list(metrics if metrics is not None else next(iter(arms.values())))
    for metric in shown:
        if not any(metric in values for values in arms.values()):
            known = sorted(set().union(*arms.values()))
            raise ValueError(f"no arm has the metric {metric!r}: choose from {known}")

    width = 1.4 + len(shown) * max(1.0, 0.5 * len(arms))
    with styled_figure(min(12.0, max(5.0, width)), 4.2) as figure:
        axis = figure.subplots()
        for index, (arm, values) in enumerate(arms.items()):
            spread = None
            if errors and arm in errors:
                spread = _percent(errors[arm], shown)
            _draw_arm(axis, _percent(values, shown), spread, label=arm, place=(index, len(arms)))

        own_names = names or {}
        labels = [own_names.get(metric, metric.replace(".", "\n", 1)) for metric in shown]
        axis.set_xticks(np.arange(len(shown)), labels)
        _tidy_bars(axis)
        if len(arms) > 1:
            columns = min(3, len(arms))
            axis.legend(frameon=False, ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        if title:
            figure.suptitle(title, fontweight="bold", fontsize=11)
    return figure


def _percent(values: Mapping[str, float | None], metrics: Sequence[str]) -> np.ndarray:
    """Return the metrics in percent, nan where one was not measured."""
    found = [values.get(metric) for metric in metrics]
    return np.array([np.nan if value is None else 100 * value for value in found], dtype=float)


def _draw_arm(
    axis: Axes,
    heights: np.ndarray,
    spread: np.ndarray | None,
    *,
    label: str,
    place: tuple[int, int],
) -> None:
    """Draw the bars of one arm. place: its number, and how many arms there are."""
    index, arms = place
    bar = min(0.82 / arms, 0.5)
    drawn = axis.bar(
        np.arange(len(heights)) + (index - (arms - 1) / 2) * bar,
        heights,
        0.92 * bar,
        yerr=spread,
        label=label,
        color=PALETTE[index % len(PALETTE)],
        ecolor="#555555",
        capsize=2,
    )
    figures = ["" if np.isnan(value) else f"{value:.1f}" for value in heights]
    axis.bar_label(drawn, labels=figures, padding=2, fontsize=8 if arms < 6 else 7)


def _tidy_bars(axis: Axes) -> None:
    axis.tick_params(axis="x", length=0)
    axis.set_ylabel("%")
    axis.margins(y=0.12)
    axis.set_ylim(bottom=0)
    axis.grid(axis="y", color="#e4e4e4")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
