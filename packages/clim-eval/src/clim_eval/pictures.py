"""Similarity maps on images, bars of accuracies, one accuracy against another. Matplotlib is imported when drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart also without full colour vision; black and yellow are left out.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8A8A8A")
INK = "#222222"
SIDE = 3.3  # inches of a panel's longer side
STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def similarity_figure(
    image: np.ndarray | Tensor,
    maps: np.ndarray | Tensor,
    texts: Sequence[str],
    *,
    boxes: np.ndarray | Tensor | None = None,
    masks: np.ndarray | Tensor | None = None,
    scores: Sequence[float] | None = None,
    title: str = "",
    columns: int = 4,
) -> Figure:
    """The image, and for each text its similarity map over the image with the best box or mask.

    Args:
        image: (H, W, 3) array or (3, H, W) tensor, uint8.
        maps: (N, h, w) cosines on a grid that covers the whole image. Each panel has its own colour scale, because
            the cosines of different texts have different levels; the bar beside it gives the values.
        texts: N texts.
        boxes: (N, 4) XYXY in [0, 1] of the image, drawn as rectangles.
        masks: (N, h, w) booleans, drawn as outlines.
        scores: N cosines, written under the panels.
        title: a line above everything.
        columns: panels per row.

    Raises ValueError when the numbers of maps, texts, boxes, masks or scores differ.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    image, maps = _pixels(image), np.asarray(maps, dtype=np.float32)
    _check_counts(len(texts), maps=maps, boxes=boxes, masks=masks, scores=scores)
    panels = len(texts) + 1
    columns = min(columns, panels)
    rows = -(-panels // columns)
    height, width = image.shape[:2]
    size = (SIDE * min(1.0, width / height), SIDE * min(1.0, height / width))  # inches of a panel
    with rc_context(STYLE):
        figure = Figure(figsize=(columns * (size[0] + 0.75), rows * (size[1] + 0.95) + 0.4 * bool(title)))
        figure.set_layout_engine("constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        axes[0].imshow(image)
        axes[0].set_title("image", fontweight="normal")
        for index, text in enumerate(texts):
            box = None if boxes is None else np.asarray(boxes[index])
            mask = None if masks is None else np.asarray(masks[index])
            _draw_map(axes[index + 1], image, maps[index], box=box, mask=mask)
            axes[index + 1].set_title(
                "\n".join(wrap(text, width=max(14, round(11 * size[0])), max_lines=2, placeholder=" …"))
            )
            if scores is not None:
                axes[index + 1].set_xlabel(f"cosine {scores[index]:.3f}", fontsize=9)
        for axis in axes:
            axis.set_xticks([])
            axis.set_yticks([])
        for axis in axes[panels:]:
            axis.set_visible(False)
        if title:
            figure.suptitle(title)
    return figure


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

    A metric that an arm does not have is left empty. Raises ValueError without arms, or for a metric no arm has.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if not arms:
        raise ValueError("no arms to draw: pass {arm: {metric: value}}")
    metrics = list(metrics if metrics is not None else next(iter(arms.values())))
    for metric in metrics:
        if not any(metric in values for values in arms.values()):
            raise ValueError(f"no arm has the metric {metric!r}: choose from {sorted(set().union(*arms.values()))}")
    names = names or {}
    bar = min(0.82 / len(arms), 0.5)
    with rc_context(STYLE):
        figure = Figure(figsize=(min(12.0, max(5.0, 1.4 + len(metrics) * max(1.0, 0.5 * len(arms)))), 4.2))
        figure.set_layout_engine("constrained")
        axis = figure.subplots()
        places = np.arange(len(metrics))
        for index, (arm, values) in enumerate(arms.items()):
            heights = np.array([100 * values.get(metric, np.nan) for metric in metrics], dtype=float)
            spread = None
            if errors and arm in errors:
                spread = np.array([100 * errors[arm].get(metric, np.nan) for metric in metrics])
            offsets = places + (index - (len(arms) - 1) / 2) * bar
            color = PALETTE[index % len(PALETTE)]
            drawn = axis.bar(
                offsets, heights, 0.92 * bar, yerr=spread, label=arm, color=color, ecolor="#555555", capsize=2
            )
            labels = ["" if np.isnan(value) else f"{value:.1f}" for value in heights]
            axis.bar_label(drawn, labels=labels, padding=2, fontsize=8 if len(arms) < 6 else 7)
        axis.set_xticks(places, [names.get(metric, metric.replace(".", "\n", 1)) for metric in metrics])
        _tidy_bars(axis)
        if len(arms) > 1:
            axis.legend(frameon=False, ncols=min(3, len(arms)), loc="lower center", bbox_to_anchor=(0.5, 1.0))
        if title:
            figure.suptitle(title, fontweight="bold", fontsize=11)
    return figure


def tradeoff_figure(
    curves: Mapping[str, Mapping[str, tuple[float, float]]],
    *,
    x_name: str,
    y_name: str,
    chosen: Mapping[str, Sequence[str]] | None = None,
    title: str = "",
) -> Figure:
    """One accuracy against another, a line of labelled points for each curve, fractions shown in percent.

    Args:
        curves: {curve: {label: (x, y)}}, fractions in [0, 1], in the order of the line.
        x_name, y_name: what the axes are.
        chosen: {curve: labels of the points that get a ring}; the legend says "not beaten by any other".
        title: a line above the picture.

    A point with nan has no place: the labels of such points are listed under the picture. Raises ValueError when no
    point can be drawn.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    drawn = {
        curve: {label: (100 * x, 100 * y) for label, (x, y) in points.items() if not (isnan(x) or isnan(y))}
        for curve, points in curves.items()
    }
    missing = [f"{curve} {label}".strip() for curve in curves for label in curves[curve] if label not in drawn[curve]]
    if not any(drawn.values()):
        raise ValueError("no point has both values: pass {curve: {label: (x, y)}} with measured fractions")
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
        rings = [drawn[curve][label] for curve in chosen or {} for label in chosen[curve] if label in drawn[curve]]
        if rings:
            ring = {"s": 110, "facecolors": "none", "edgecolors": INK, "linewidths": 1.2}
            axis.scatter(*zip(*rings, strict=True), **ring, label="not beaten by any other")
        axis.set_xlabel(f"{x_name}, %" + (f"\n(not measured: {', '.join(missing)})" if missing else ""))
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


def _check_counts(texts: int, **given: Sequence | None) -> None:
    for name, values in given.items():
        if values is not None and len(values) != texts:
            raise ValueError(f"{len(values)} {name} for {texts} texts: pass one for each text")


def _tidy_bars(axis: Axes) -> None:
    axis.tick_params(axis="x", length=0)
    axis.set_ylabel("%")
    axis.margins(y=0.12)
    axis.set_ylim(bottom=0)
    axis.grid(axis="y", color="#e4e4e4")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_map(axis: Axes, image: np.ndarray, values: np.ndarray, *, box, mask) -> None:
    from matplotlib.patches import Rectangle

    height, width = image.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    # A grey picture under the map, so that colour means similarity only.
    axis.imshow(image @ np.array([0.299, 0.587, 0.114]), cmap="gray", vmin=0, vmax=255, extent=extent)
    low, high = np.quantile(values, 0.02), values.max()
    high = max(high, low + 1e-6)
    # Weak similarity is also more transparent, so that the picture stays visible where nothing was found.
    strength = np.clip((values - low) / (high - low), 0, 1)
    drawn = axis.imshow(
        values, cmap="turbo", vmin=low, vmax=high, alpha=0.25 + 0.5 * strength, extent=extent, interpolation="bilinear"
    )
    bar = axis.figure.colorbar(drawn, cax=axis.inset_axes((1.025, 0, 0.12 / (SIDE * min(1.0, width / height)), 1)))
    bar.ax.tick_params(labelsize=7, length=2)
    bar.ax.locator_params(nbins=4)
    bar.solids.set_alpha(1)
    bar.outline.set_visible(False)
    if mask is not None and mask.any():
        _outline(axis, mask, width / mask.shape[1], height / mask.shape[0])
    if box is not None:
        x0, y0, x1, y1 = box * np.array([width, height, width, height]) - 0.5
        for color, thickness in (("black", 4), ("white", 2)):  # readable on any ground
            axis.add_patch(
                Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=thickness, clip_on=False)
            )
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)


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
    for color, thickness in (("black", 3), ("white", 1.5)):
        axis.add_collection(LineCollection(list(scaled), colors=color, linewidths=thickness, capstyle="round"))


def _pixels(image: np.ndarray | Tensor) -> np.ndarray:
    array = np.asarray(image)
    if isinstance(image, Tensor):
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError(
            f"image of shape {array.shape} and type {array.dtype}: pass a uint8 (H, W, 3) array or (3, H, W) tensor"
        )
    return array
