"""The report of a comparison: accuracy and cost in one table, the data of each arm, trade-offs, and
pictures of where each model sees a word."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import torch
from clim_eval import similarity_figure, tradeoff_figure, write_report
from clim_models import RegionModel
from matplotlib.figure import Figure
from torch import Tensor

from clim_train.experiments.comparison.arms import Arm, ArmOptions
from clim_train.experiments.comparison.data import ComparisonData, RegionSet
from clim_train.experiments.comparison.plan import Plan, Results
from clim_train.experiments.comparison.run import machine_of
from clim_train.experiments.console import aligned_table
from clim_train.experiments.image_towers import set_image_tower

Metrics = Mapping[str, float]
Rows = Mapping[str, Sequence[Metrics]]  # title of a row -> its runs, one per seed

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
IMAGE_TOP1 = ("zeroshot.seen.top1", "zeroshot.all.top1")
COST = {
    "cost.step_s": "s/step",
    "cost.total_s": "total s",
    "cost.peak_gib": "peak GiB",
}


def summarize(runs: Sequence[Metrics]) -> tuple[dict[str, float], dict[str, float]]:
    """Return mean and standard deviation of every metric over the runs of an arm.

    The latter is empty for a single run.
    """
    means: dict[str, float] = {}
    spread: dict[str, float] = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        means[name] = mean(values)
        if len(runs) > 1:
            spread[name] = stdev(values)
    return means, spread


def with_spreads(rows: Rows) -> dict[str, dict[str, float]]:
    """Return the means of every row, and a row of standard deviations where there are any."""
    found = {}
    for title, runs in rows.items():
        means, spread = summarize(runs)
        found[title] = means
        if spread:
            found[f"{title}, std over seeds"] = spread
    return found


def mixed_rows(plan: Plan, results: Results) -> dict[str, list[dict[str, float]]]:
    """Return a row for every arm and alpha between start and trained weights."""
    found = {}
    for name, along in results.points.items():
        for alpha, runs in along.items():
            found[plan.arms[name].mixed_title(alpha)] = runs
    return found


def result_table(rows: Rows, columns: Mapping[str, str] | None = None) -> str:
    """Return Markdown: an arm per row, accuracies in percent and costs, mean and spread over seeds.

    Args:
        columns: name of a figure -> head of its column. Default: every known one that was measured.
    """
    summaries = {row: summarize(runs) for row, runs in rows.items()}
    if columns is None:
        measured = {name for means, _ in summaries.values() for name in means}
        columns = {name: title for name, title in {**ACCURACY, **COST}.items() if name in measured}

    lines = [["", *columns.values()]]
    for row, (means, spread) in summaries.items():
        lines.append([row, *(_cell(name, means, spread) for name in columns)])
    return aligned_table(lines)


def _cell(name: str, means: Metrics, spread: Metrics) -> str:
    if name not in means:
        return "-"
    scale, digits = (1, 2) if name in COST else (100, 1)
    if name == "cost.total_s":
        digits = 0
    text = f"{scale * means[name]:.{digits}f}"
    return f"{text} ± {scale * spread[name]:.{digits}f}" if name in spread else text


def budget_table(arms: Mapping[str, Arm], options: ArmOptions) -> str:
    """Return Markdown: what each arm learns from, and how much of it in a step."""
    lines = [["", "images/step", "pixels/step", "learning rate", "learns from"]]
    for name, arm in arms.items():
        images, pixels = arm.images(options), f"{arm.pixels(options) / 1e6:.3f} M"
        lr = f"{options.lrs[name]:g}"
        lines.append([arm.title, str(images), pixels, lr, arm.learns_from])
    return aligned_table(lines)


def best_lines(rows: Rows, start: str) -> str:
    """Return a Markdown list: for each accuracy the start, and the arm with the highest mean."""
    means = {row: summarize(runs)[0] for row, runs in rows.items()}
    untrained = means.pop(start)
    lines = []
    for name, title in ACCURACY.items():
        values = {row: found[name] for row, found in means.items() if name in found}
        if name in untrained and values:
            best = max(values, key=values.__getitem__)
            lines.append(
                f"- {title}: start {100 * untrained[name]:.1f}, highest {100 * values[best]:.1f} "
                f"({best})"
            )
    return "\n".join(lines)


def tradeoffs(plan: Plan, results: Results) -> dict[str, Figure]:
    """Draw region accuracy against the accuracy of naming whole images, as means over the seeds.

    Each arm has a line from the start (alpha 0) to its trained weights (alpha 1). Without labelled
    images there is none: retrieval among few images says too little.
    """
    start = summarize(results.rows[plan.start])[0]
    metric = next((name for name in IMAGE_TOP1 if name in start), None)
    if metric is None:
        return {}
    names = ("seen.boxes.all.mAcc1", metric)
    return {"region accuracy against zero-shot": tradeoff_of(plan, results, names)}


def tradeoff_of(plan: Plan, results: Results, names: tuple[str, str]) -> Figure:
    """Draw two accuracies of every arm against each other, with error bars over the seeds.

    Args:
        names: of the accuracies of regions and of whole images.
    """
    curves: dict[str, dict[str, tuple[float, float]]] = {}
    errors: dict[str, dict[str, tuple[float, float]]] = {}
    for name, arm in plan.arms.items():
        curves[arm.title], errors[arm.title] = _curve(plan, results, name, names)
    return tradeoff_figure(
        curves,
        x_name="naming boxes of seen concepts, one pass, top-1",
        y_name="naming whole images, top-1",
        errors=errors,
        title=tradeoff_title(curves),
    )


def tradeoff_title(curves: Mapping[str, Mapping[str, tuple[float, float]]]) -> str:
    """Name the arm that keeps most of the image accuracy, among the arms with a gain in regions.

    Args:
        curves: arm -> alpha -> (region accuracy, image accuracy), alpha 0 first and 1 last.
    """
    ends = {arm: list(curve.values()) for arm, curve in curves.items()}
    best_gain = max(points[-1][0] - points[0][0] for points in ends.values())
    gaining = {
        arm: points[-1][1]
        for arm, points in ends.items()
        if points[-1][0] - points[0][0] > best_gain / 2
    }
    if best_gain <= 0 or len(gaining) < 2:
        return "What each method gains and costs, by alpha"
    keeper = max(gaining, key=gaining.__getitem__)
    return f"{keeper} keeps most of what CLIP knew"


Places = dict[str, tuple[float, float]]  # alpha -> figures of regions and of whole images


def _curve(plan: Plan, results: Results, arm: str, names: tuple[str, str]) -> tuple[Places, Places]:
    """Return means, and standard deviations where there are several seeds, of two figures of one
    arm, alphas ascending."""
    runs = {
        0.0: results.rows[plan.start],
        **results.points.get(arm, {}),
        1.0: results.rows[plan.arms[arm].title],
    }
    curve: Places = {}
    errors: Places = {}
    for alpha, found in sorted(runs.items()):
        means, spread = summarize(found)
        curve[f"{alpha:g}"] = (means[names[0]], means[names[1]])
        if spread:
            errors[f"{alpha:g}"] = (spread[names[0]], spread[names[1]])
    return curve, errors


def look_figures(
    model: RegionModel, towers: Mapping[str, Mapping[str, Tensor]], part: RegionSet, count: int = 2
) -> dict[str, Figure]:
    """Draw where each image tower's dense features find `count` words of the first scene."""
    scenes = map(part.scenes.__getitem__, range(len(part.scenes)))
    sample = next(scene for scene in scenes if len(scene.labels))
    labels = sample.labels[:count]
    maps = {}
    for name, tower in towers.items():
        set_image_tower(model, tower)
        maps[name] = word_maps(model, sample.image, part.embeddings[labels])

    figures = {}
    for i in range(len(labels)):
        word = part.scenes.class_names[int(sample.labels[i])]
        figures[f"where, word {i + 1}"] = similarity_figure(
            sample.image,
            torch.stack([found[i] for found in maps.values()]),
            list(maps),
            boxes=sample.boxes[i : i + 1].expand(len(maps), 4),
            title=f"Where each model sees “{word}”",
        )
    return figures


@torch.no_grad()
def word_maps(model: RegionModel, image: Tensor, texts: Tensor) -> Tensor:
    """Return (n, h, w) cosines of the dense features of an image with n words, on the CPU.

    Args:
        image: uint8 (3, H, W).
        texts: (n, C) unit rows.
    """
    model.eval()
    dense = model.encode_dense(model.normalize_pixels(image[None]))  # (1, C, h, w)
    return torch.einsum("nc,chw->nhw", texts.cpu(), dense[0].float().cpu())


def write_comparison(
    folder: Path, plan: Plan, results: Results, data: ComparisonData, model: RegionModel
) -> str:
    """Write report.json, report.md and figures, and return the main table as text."""
    between = mixed_rows(plan, results)
    table = result_table(results.rows)
    notes = [
        table,
        f"Highest of the trained arms:\n\n{best_lines(results.rows, plan.start)}",
    ]
    if between:
        notes.append(f"Between start and trained weights:\n\n{result_table(between)}")
    notes.append(f"What a step was:\n\n{budget_table(plan.arms, plan.options)}")
    counts = ", ".join(f"{name}: {count}" for name, count in data.counts().items())
    notes.append(f"Measured on {counts}.")

    write_report(
        folder,
        title="Comparison of region training methods",
        metrics=with_spreads({**results.rows, **between}),
        config=about(plan, model),
        figures={
            **tradeoffs(plan, results),
            **look_figures(model, results.towers, data.regions[0]),
        },
        data=data.counts(),
        notes=notes,
    )
    return table


def about(plan: Plan, model: RegionModel) -> dict[str, object]:
    """Return how the figures of a comparison were made."""
    return {
        "options": plan.options,
        "sources": plan.sources,
        "arms": list(plan.arms),
        "seeds": list(plan.seeds),
        "alphas": list(plan.alphas),
        "machine": machine_of(model),
    }
