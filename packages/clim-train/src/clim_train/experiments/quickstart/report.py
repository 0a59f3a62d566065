"""What the quick start shows at its end: one table, a report folder, bars and similarity maps
before and after."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import torch
from clim_eval import accuracy_bars, similarity_figure, write_report
from clim_models import RegionModel
from matplotlib.figure import Figure
from torch import Tensor

from clim_train.experiments.console import aligned_table
from clim_train.experiments.image_towers import set_image_tower
from clim_train.experiments.quickstart.data import SceneSet

COLUMNS = {
    "boxes.mAcc1": "region top-1",
    "boxes.mAcc5": "top-5",
    "boxes_value.mAcc1": "value path",
    "boxes_attention.mAcc1": "box-masked CLS",
    "crops.mAcc1": "crops",
    "image.top1": "image top-1",
    "retrieval.t2i.R@1": "text-to-image R@1",
}
Metrics = Mapping[str, float]


def summarize(runs: Sequence[Metrics]) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and standard deviation of every metric over the runs of an arm; the latter is empty for
    a single run."""
    names = runs[0]
    means = {name: mean(run[name] for run in runs) for name in names}
    spread = {name: stdev(run[name] for run in runs) for name in names} if len(runs) > 1 else {}
    return means, spread


def arm_table(arms: Mapping[str, Sequence[Metrics]], part: str) -> str:
    """Markdown table of one evaluation set: an arm per row, percent, with the spread over seeds
    where there is one."""
    rows = [["", *COLUMNS.values()]]
    for arm, runs in arms.items():
        means, spread = summarize(runs)
        cells = []
        for column in COLUMNS:
            name = f"{part}.{column}"
            text = f"{100 * means[name]:.1f}" if name in means else "-"
            cells.append(
                f"{text} ± {100 * spread[name]:.1f}" if name in spread and name in means else text
            )
        rows.append([arm, *cells])
    return aligned_table(rows)


@torch.no_grad()
def similarity_pictures(
    model: RegionModel, weights: Mapping[str, Mapping[str, Tensor]], part: SceneSet, count: int = 2
) -> dict[str, Figure]:
    """Similarity maps of the first scenes of a set for each named image tower: {"scene 1, NAME":
    Figure}."""
    figures = {}
    for name, tower in weights.items():
        set_image_tower(model, tower)
        model.eval()
        for i in range(min(count, len(part.scenes))):
            sample = part.scenes[i]
            dense = (
                model.encode_dense(model.normalize_pixels(sample.image[None]))[0].float().cpu()
            )  # (C, h, w)
            texts = part.embeddings[sample.labels].cpu()
            maps = torch.einsum("nc,chw->nhw", texts, dense)
            shown = [part.scenes.class_names[label] for label in sample.labels.tolist()]
            title = f"Where the dense features say each word is: {name}"
            figures[f"scene {i + 1}, {name}"] = similarity_figure(
                sample.image, maps, shown, boxes=sample.boxes, title=title, columns=3
            )
    return dict(sorted(figures.items()))


def write_quickstart_report(
    folder: Path,
    arms: Mapping[str, Sequence[Metrics]],
    *,
    parts: Sequence[SceneSet],
    config: Mapping,
    pictures: Mapping[str, Figure],
    notes: Sequence[str] = (),
) -> str:
    """Write report.json, report.md and the figures, and return the tables as text."""
    summaries = {arm: summarize(runs) for arm, runs in arms.items()}
    tables = []
    for part in parts:
        head = f"{part.name.replace('_', ' ')}: {len(part.scenes)} scenes, {len(part.classes)} classes, percent"
        tables.append(f"**{head}**\n\n{arm_table(arms, part.name)}")
    first = parts[0].name
    shown = {
        f"{first}.{column}": title for column, title in COLUMNS.items() if column != "boxes.mAcc5"
    }
    known = {
        name: title for name, title in shown.items() if name in next(iter(summaries.values()))[0]
    }
    bars = accuracy_bars(
        {arm: means for arm, (means, _) in summaries.items()},
        metrics=list(known),
        names={name: title.replace(" ", "\n", 1) for name, title in known.items()},
        errors={arm: spread for arm, (_, spread) in summaries.items() if spread} or None,
        title=f"Region and image accuracy, {first.replace('_', ' ')}",
    )
    metrics = {arm: means for arm, (means, _) in summaries.items()}
    metrics |= {
        f"{arm}, std over seeds": spread for arm, (_, spread) in summaries.items() if spread
    }
    write_report(
        folder,
        title="CLIM quick start",
        metrics=metrics,
        config=config,
        figures={"accuracy of every arm": bars, **pictures},
        notes=[*tables, *notes],
    )
    return "\n\n".join(tables).replace("**", "")
