"""What a comparison shows: one table of accuracy and cost, what each arm was told, trade-offs, and
where it looks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from clim_eval import similarity_figure, tradeoff_figure, write_report
from clim_models import RegionModel
from matplotlib.figure import Figure
from torch import Tensor

from clim_train.experiments.comparison.arms import ARMS, START, ArmOptions
from clim_train.experiments.comparison.data import ComparisonData, RegionSet
from clim_train.experiments.console import aligned_table
from clim_train.experiments.image_towers import set_image_tower
from clim_train.experiments.quickstart.report import summarize

Metrics = Mapping[str, float]
Rows = Mapping[str, Sequence[Metrics]]  # row title -> its runs, one per seed
Points = Mapping[str, Mapping[float, Sequence[Metrics]]]  # arm's title -> alpha -> its runs

ACCURACY = {
    "seen.boxes.all.mAcc1": "boxes, seen",
    "seen.masks.all.mAcc1": "masks, seen",
    "unseen.boxes.all.mAcc1": "boxes, unseen",
    "unseen.masks.all.mAcc1": "masks, unseen",
    "seen.crops.all.mAcc1": "crops, seen",
    "unseen.crops.all.mAcc1": "crops, unseen",
    "retrieval.t2i.R@1": "text-to-image R@1",
    "retrieval.i2t.R@1": "image-to-text R@1",
    "zeroshot.seen.top1": "image top-1, seen",
    "zeroshot.unseen.top1": "image top-1, unseen",
    "zeroshot.all.top1": "image top-1",
}
COST = {
    "cost.step_s": "s/step",
    "cost.total_s": "total s",
    "cost.peak_gib": "peak GiB",
}
SUPERVISION = {
    "image": "image-caption pairs",
    "clim": "the same image-caption pairs",
    "clipself": "scenes, no text, no boxes",
    "clipself_boxes": "the same scenes and their boxes, no text",
    "regionclip": "the same scenes and boxes; nouns chosen by the start model from the scene's captions",
}


def result_table(rows: Rows) -> str:
    """Markdown: an arm per row, accuracies in percent and costs, with the spread over seeds where
    there is one."""
    summaries = {row: summarize(runs) for row, runs in rows.items()}
    measured = {name for means, _ in summaries.values() for name in means}
    columns = {name: title for name, title in {**ACCURACY, **COST}.items() if name in measured}
    lines = [["", *columns.values()]]
    for row, (means, spread) in summaries.items():
        lines.append([row, *(_cell(name, means, spread) for name in columns)])
    return aligned_table(lines)


def _means(along: Mapping[float, Sequence[Metrics]]) -> dict[float, Metrics]:
    return {alpha: summarize(runs)[0] for alpha, runs in along.items()}


def _cell(name: str, means: Metrics, spread: Metrics) -> str:
    if name not in means:
        return "-"
    scale, digits = (100, 1) if name in ACCURACY else (1, 0 if name == "cost.total_s" else 2)
    text = f"{scale * means[name]:.{digits}f}"
    return f"{text} ± {scale * spread[name]:.{digits}f}" if name in spread else text


def budget_table(arms: Sequence[str], options: ArmOptions) -> str:
    """Markdown: what each arm learns from, and how much of it in a step."""
    lines = [["", "images/step", "pixels/step", "learning rate", "learns from"]]
    for arm in arms:
        pixels = f"{options.pixels_of(arm) / 1e6:.3f} M"
        lines.append(
            [ARMS[arm], str(options.images(arm)), pixels, f"{options.lrs[arm]:g}", SUPERVISION[arm]]
        )
    return aligned_table(lines)


def best_lines(rows: Rows) -> str:
    """Markdown list: for each accuracy the start, and the arm with the highest mean."""
    means = {row: summarize(runs)[0] for row, runs in rows.items()}
    start, lines = means[START], []
    for name, title in ACCURACY.items():
        values = {
            row: found[name] for row, found in means.items() if row != START and name in found
        }
        if name in start and values:
            best = max(values, key=values.__getitem__)
            lines.append(
                f"- {title}: start {100 * start[name]:.1f}, highest {100 * values[best]:.1f} "
                f"({best})"
            )
    return "\n".join(lines)


def tradeoffs(rows: Rows, points: Points) -> dict[str, Figure]:
    """Region accuracy against each image-level ability; a line per arm from the start (alpha 0) to
    the trained weights.

    Means over the seeds.
    """
    means = {row: summarize(runs)[0] for row, runs in rows.items()}
    start = means[START]
    figures = {}
    for name, metric in {
        "retrieval": "retrieval.t2i.R@1",
        "zero-shot": "zeroshot.seen.top1",
    }.items():
        metric = metric if metric in start else "zeroshot.all.top1"
        if metric not in start:
            continue
        curves = {
            arm: {
                f"{alpha:g}": (found["seen.boxes.all.mAcc1"], found[metric])
                for alpha, found in sorted(
                    {0.0: start, **_means(points.get(arm, {})), 1.0: means[arm]}.items()
                )
            }
            for arm in means
            if arm != START
        }
        figures[f"region accuracy against {name}"] = tradeoff_figure(
            curves,
            x_name="region top-1, boxes of seen concepts, one pass",
            y_name=ACCURACY[metric],
            title="What each method gains and costs, by alpha",
        )
    return figures


@torch.no_grad()
def look_figures(
    model: RegionModel, towers: Mapping[str, Mapping[str, Tensor]], part: RegionSet, count: int = 2
) -> dict[str, Figure]:
    """Where each image tower's dense features say a word is, for `count` words of the first
    scene."""
    sample = next(
        sample for sample in (part.scenes[i] for i in range(len(part.scenes))) if len(sample.labels)
    )
    texts = part.embeddings[sample.labels[:count]].cpu()  # (n, C)
    maps = {}
    for name, tower in towers.items():
        set_image_tower(model, tower)
        model.eval()
        dense = (
            model.encode_dense(model.normalize_pixels(sample.image[None]))[0].float().cpu()
        )  # (C, h, w)
        maps[name] = torch.einsum("nc,chw->nhw", texts, dense)
    figures = {}
    for i in range(len(texts)):
        word = part.scenes.class_names[int(sample.labels[i])]
        figures[f"where, word {i + 1}"] = similarity_figure(
            sample.image,
            torch.stack([found[i] for found in maps.values()]),
            list(maps),
            boxes=sample.boxes[i : i + 1].expand(len(maps), 4),
            title=f"Where each model sees “{word}”",
        )
    return figures


def write_comparison(
    folder: Path,
    rows: Rows,
    points: Points,
    *,
    arms: Sequence[str],
    options: ArmOptions,
    data: ComparisonData,
    about: Mapping,
    pictures: Mapping[str, Figure],
) -> str:
    """Write report.json, report.md and figures, and return the main table as text.

    rows: the start and the arms. points: the arms at alphas between 0 and 1. about: how the figures
    were made.
    """
    between = {
        f"{arm}, alpha {alpha:g}": runs
        for arm, along in points.items()
        for alpha, runs in along.items()
    }
    table = result_table(rows)
    notes = [table, f"Highest of the trained arms:\n\n{best_lines(rows)}"]
    if between:
        notes.append(f"Between start and trained weights:\n\n{result_table(between)}")
    notes.append(f"What a step was:\n\n{budget_table(arms, options)}")
    counts = ", ".join(f"{name}: {count}" for name, count in data.counts().items())
    metrics = {}
    for row, runs in {**rows, **between}.items():
        means, spread = summarize(runs)
        metrics[row] = means
        if spread:
            metrics[f"{row}, std over seeds"] = spread
    write_report(
        folder,
        title="Comparison of region training methods",
        metrics=metrics,
        config={"options": options, **about},
        figures={**tradeoffs(rows, points), **pictures},
        data=data.counts(),
        notes=[*notes, f"Measured on {counts}."],
    )
    return table
