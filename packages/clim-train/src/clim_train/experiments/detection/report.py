"""The report of the quick start of detectors: tables, the difference in words, pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import torch
from clim_data import decode_rgb
from clim_eval import write_report
from clim_eval.pictures import NamedBoxes, named_boxes_figure
from clim_eval.reports import to_jsonable
from matplotlib.figure import Figure
from torch import Tensor

from clim_train.experiments.comparison.data import Metrics
from clim_train.experiments.comparison.report import result_table, with_spreads
from clim_train.experiments.detection.detectors import BACKBONES
from clim_train.experiments.detection.measure import Answers
from clim_train.experiments.detection.options import DetectionOptions
from clim_train.experiments.detection.scenes import (
    ONE_OTHER,
    SEVERAL_OTHERS,
    DetectionScenes,
    scene_files,
)

COLUMNS = {
    "asked.base": "finds a base word",
    "asked.novel": "finds a novel word",
    "AP50.base": "AP50 base",
    "AP50.novel": "AP50 novel",
    f"AP50.novel, {ONE_OTHER}": "novel, one other name",
    f"AP50.novel, {SEVERAL_OTHERS}": "novel, several others",
    "recall.base": "recall base",
    "recall.novel": "recall novel",
}
NOTE = (
    "Finds a word: asked for the five words of a scene and the five of another one, the best box "
    "of a word that is there lies on its drawing (IoU 0.5). AP50: mean over classes, IoU 0.5, all "
    "base and novel classes compete. Recall: share of true boxes that one of at most 100 found "
    "boxes overlaps with IoU 0.5, of any class. Other names: every novel class is called by "
    "another of its names, or by the mean of several. Drawings are not photographs: these figures "
    "say nothing about photographs."
)
Rows = Mapping[str, Sequence[Metrics]]


def detection_table(rows: Rows) -> str:
    """Return Markdown: a backbone per row, percent, mean and spread over seeds."""
    measured = next(iter(rows.values()))[0]
    return result_table(rows, {key: title for key, title in COLUMNS.items() if key in measured})


def difference(rows: Rows) -> str:
    """Describe by how much the backbones differ in AP50 of novel concepts, for better or worse."""
    clim = rows.get(BACKBONES["clim"].title)
    if clim is None:
        return ""
    lines = []
    for name in ("start", "image"):
        title = BACKBONES[name].title
        if title in rows:
            lines.append(_compared([run["AP50.novel"] for run in clim], rows[title], title))
    return "\n".join(lines)


def _compared(clim: Sequence[float], runs: Sequence[Metrics], title: str) -> str:
    """Compare CLIM's AP50 of novel concepts with that of another backbone, seed by seed."""
    gains = [100 * (one - run["AP50.novel"]) for one, run in zip(clim, runs, strict=True)]
    gain = mean(gains)
    way = "higher" if gain > 0 else "lower"
    text = (
        f"- AP50 of novel concepts is {abs(gain):.1f} points {way} on the tower after CLIM than on "
        f"“{title}”"
    )
    if len(gains) == 1:
        return f"{text}; with one seed, nobody knows how much of that is chance."
    spread = stdev(gains)
    verdict = "" if abs(gain) > 2 * spread else ", which may be chance"
    return f"{text} (± {spread:.1f} over {len(gains)} seeds{verdict})."


def found_pictures(
    answered: Mapping[str, Sequence[Answers]], scenes: DetectionScenes
) -> dict[str, Figure]:
    """Draw the best box of each word of the first scenes: {"asked for its words": Figure}.

    Args:
        answered: title of a backbone -> what its detector answers for the first scenes.
    """
    count = min(len(found) for found in answered.values())
    images = [decode_rgb(path) for path in scene_files(scenes.test)[:count]]
    views, counts = {}, []
    for title, found in answered.items():
        views[title] = [_named(one, image) for one, image in zip(found, images)]
        right = torch.cat([one.right for one in found[:count]])
        counts.append(f"{int(right.sum())} {title}")

    told = f"Words of {len(right)} whose best box is right:\n{', '.join(counts)}"
    figure = named_boxes_figure(images, views, verb="found", title=told)
    return {"asked for its words": figure}


def _named(answered: Answers, image: Tensor) -> NamedBoxes:
    """Return the boxes of a scene's words as fractions of its sides."""
    height, width = image.shape[-2:]
    boxes = answered.boxes.numpy() / [width, height, width, height]
    return NamedBoxes(boxes, answered.words, answered.right.tolist())


def write_detection_report(
    folder: Path,
    options: DetectionOptions,
    rows: Rows,
    scenes: DetectionScenes,
    figures: Mapping[str, Figure],
) -> str:
    """Write report.json, report.md and the figures, and return the table and its reading."""
    concepts = scenes.concepts
    counts = {
        "base classes": len(concepts.base),
        "novel classes": len(concepts.novel),
        "training scenes": options.train_scenes,
        "measured scenes": options.scenes,
    }
    page = f"{detection_table(rows)}\n\n{difference(rows)}"
    write_report(
        folder,
        title="Quick start of detectors",
        metrics=with_spreads(rows),
        config={"options": to_jsonable(options), "detector": to_jsonable(options.fvit)},
        figures=dict(figures),
        data=counts,
        notes=[page, NOTE],
    )
    return page
