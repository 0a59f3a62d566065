"""Bars of accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from clim_eval.pictures.style import PALETTE, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def accuracy_bars(
    arms: Mapping[str, Mapping[str, float]],
    *,
    metrics: Sequence[str] | None = None,
    names: Mapping[str, str] | None = None,
    errors: Mapping[str, Mapping[str, float]] | None = None,
    title: str = "",
) -> Figure:
    """Grouped bars: one group per metric, one colour per arm, fractions shown in percent.

    Args:
        arms: {arm: {metric: fraction in [0, 1]}}.
        metrics: which metrics, in order; default: those of the first arm.
        names: what to write under a group instead of the metric's name.
        errors: {arm: {metric: half length of the error bar}}, fractions.
        title: a line above the bars.

    A metric that an arm does not have is left empty. Raises ValueError without arms, or for a
    metric no arm has.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if not arms:
        raise ValueError("no arms to draw: pass {arm: {metric: value}}")
    metrics = list(metrics if metrics is not None else next(iter(arms.values())))
    for metric in metrics:
        if not any(metric in values for values in arms.values()):
            raise ValueError(
                f"no arm has the metric {metric!r}: choose from "
                f"{sorted(set().union(*arms.values()))}"
            )
    names = names or {}
    bar = min(0.82 / len(arms), 0.5)
    with rc_context(STYLE):
        figure = Figure(
            figsize=(min(12.0, max(5.0, 1.4 + len(metrics) * max(1.0, 0.5 * len(arms)))), 4.2)
        )
        figure.set_layout_engine("constrained")
        axis = figure.subplots()
        places = np.arange(len(metrics))
        for index, (arm, values) in enumerate(arms.items()):
            heights = np.array(
                [100 * values.get(metric, np.nan) for metric in metrics], dtype=float
            )
            spread = None
            if errors and arm in errors:
                spread = np.array([100 * errors[arm].get(metric, np.nan) for metric in metrics])
            offsets = places + (index - (len(arms) - 1) / 2) * bar
            color = PALETTE[index % len(PALETTE)]
            drawn = axis.bar(
                offsets,
                heights,
                0.92 * bar,
                yerr=spread,
                label=arm,
                color=color,
                ecolor="#555555",
                capsize=2,
            )
            labels = ["" if np.isnan(value) else f"{value:.1f}" for value in heights]
            axis.bar_label(drawn, labels=labels, padding=2, fontsize=8 if len(arms) < 6 else 7)
        axis.set_xticks(
            places, [names.get(metric, metric.replace(".", "\n", 1)) for metric in metrics]
        )
        _tidy_bars(axis)
        if len(arms) > 1:
            axis.legend(
                frameon=False,
                ncols=min(3, len(arms)),
                loc="lower center",
                bbox_to_anchor=(0.5, 1.0),
            )
        if title:
            figure.suptitle(title, fontweight="bold", fontsize=11)
    return figure


def _tidy_bars(axis: Axes) -> None:
    axis.tick_params(axis="x", length=0)
    axis.set_ylabel("%")
    axis.margins(y=0.12)
    axis.set_ylim(bottom=0)
    axis.grid(axis="y", color="#e4e4e4")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
