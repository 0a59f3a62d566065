"""The plan, the arms and the report of the quick start with `--train`.

Without options it measures the shipped weights before and after CLIM. With --train it is a preset
of the comparison (`clim_train.experiments.comparison`). It starts from the shipped
clim-tiny (a CLIP with image-level pretraining), trains it further in three ways, and measures
region and image accuracy on scenes of a vendor and of concepts that were never seen. All arms have
the same start, drawings, optimizer and steps:

- image: every drawing of a batch is a single image.
- tiles: 87 of the 144 drawings are regions, each on a canvas of its own.
- clim: the same 87 are regions, together on mosaics.

It ends with a table, `report.md`, `report.json` and figures.
"""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from clim_data import MosaicBatch
from clim_eval import accuracy_bars, write_report
from clim_eval.reports import to_jsonable
from clim_models import RegionModel
from matplotlib.figure import Figure
from torch import Tensor

from clim_train.experiments.comparison import words
from clim_train.experiments.comparison.arms import (
    Arm,
    ArmOptions,
    clim_sections,
    image_sections,
)
from clim_train.experiments.comparison.data import ComparisonData, Metrics
from clim_train.experiments.comparison.drawings import DrawingOptions
from clim_train.experiments.comparison.plan import Plan, Results
from clim_train.experiments.comparison.report import (
    about,
    mixed_rows,
    result_table,
    summarize,
    tradeoff_of,
    with_spreads,
)
from clim_train.experiments.image_towers import set_image_tower
from clim_train.methods.clim import ClimConfig, ClimTask
from clim_train.recipes.clim import clim_quickstart

START = "pretrained clim-tiny"
OUTPUTS = ("boxes", "boxes_value", "boxes_attention")
GROUPS = {
    "test": {"seen": "unseen_vendor", "unseen": "unseen_concepts"},
    "val": {"seen": "seen_drawings", "unseen": "val_concepts"},
}
COLUMNS = {
    "boxes.mAcc1": "region top-1",
    "boxes.mAcc5": "top-5",
    "boxes_value.mAcc1": "value path",
    "boxes_attention.mAcc1": "box-masked CLS",
    "crops.mAcc1": "crops",
    "image.top1": "image top-1",
    "retrieval.t2i.R@1": "text-to-image R@1",
}
NOTE = (
    "One pass: RoIAlign of the dense map (value path of the last block). Value path: without "
    "residual and MLP. "
    "Crops: one extra pass per region. Drawings are not photographs: these figures say nothing "
    "about photographs."
)


class SingleTileTask(ClimTask):
    """The control without mosaics: each tile is cut out again and encoded alone, pooled over its
    whole extent.

    Pixels, captions and loss are the same as in `ClimTask`. Only the shared canvas is missing.
    """

    def image_features(self, batch: MosaicBatch) -> Tensor:
        """Return (N, C) unit rows in the order of the batch; see `ClimTask.image_features`."""
        rows = []
        for mosaic, boxes in zip(batch.mosaics, batch.boxes, strict=True):
            tiles = cut_tiles(mosaic, boxes)
            whole = [torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=mosaic.device)] * len(tiles)
            rows.append(self.model.encode_boxes(self._pixels(tiles), whole, mode=self.box_mode))
        if len(batch.singles):
            rows.append(self.model.encode_image(self._pixels(batch.singles)))
        return torch.cat(rows)


def cut_tiles(mosaic: Tensor, boxes: Tensor) -> Tensor:
    """Cut the tiles of one mosaic (3, P, P), all of one size, as (n, 3, p, p).

    Args:
        boxes: (n, 4) XYXY in [0, 1].
    """
    edges = (boxes * mosaic.shape[-1]).round().long().tolist()
    return torch.stack([mosaic[:, y0:y1, x0:x1] for x0, y0, x1, y1 in edges])


def single_tile_task(options: ClimConfig, model: RegionModel) -> SingleTileTask:
    """Build the task of the control without mosaics."""
    return SingleTileTask(
        model,
        mask_duplicate_captions=options.mask_duplicate_captions,
        box_mode=options.box_mode,
    )


ARMS = {
    "clim": Arm(
        "+ CLIM (mosaics)",
        "the same drawings; tiles on mosaics",
        clim_sections,
        side=None,
        short_title="CLIM",
    ),
    "image": Arm(
        "+ image-level training",
        "single drawings and their captions",
        image_sections,
        side="single_px",
        same_images=True,
    ),
    "tiles": Arm(
        "+ region loss, no mosaics",
        "the same drawings; tiles alone",
        clim_sections,
        side=None,
        task=single_tile_task,
    ),
}


@dataclasses.dataclass(frozen=True)
class QuickstartOptions:
    """Options of the user.

    The defaults were chosen on the validation split (see docs/quickstart.md).
    """

    steps: int = 250
    lr: float = 3e-3
    batch_size: int = 144
    min_singles: int = 57
    unlocked_blocks: int = 7
    canvas_px: int = 192

    def arm_options(self) -> ArmOptions:
        """Return the options as the comparison takes them. Raises ValueError for `steps` < 1."""
        recipe = clim_quickstart()
        return ArmOptions(
            model=dataclasses.replace(recipe.model, unlocked_blocks=self.unlocked_blocks),
            optim=recipe.optim,
            lrs=dict.fromkeys(ARMS, self.lr),
            steps=self.steps,
            batch_size=self.batch_size,
            min_singles=self.min_singles,
            region_px=self.canvas_px,
            workers=1 if torch.cuda.is_available() else 0,
        )


def quickstart_plan(
    options: ArmOptions, drawings: DrawingOptions, arms: Sequence[str], seeds: Sequence[int]
) -> Plan:
    """Plan the quick start; the mixtures with the start are measured for CLIM only."""
    group = GROUPS[drawings.split]["seen"]
    return Plan(
        options,
        {"data": "embedded drawings", **to_jsonable(drawings)},
        {name: ARMS[name] for name in arms},
        seeds=seeds,
        mixed=("clim",),
        outputs=OUTPUTS,
        start=START,
        summary={"region": f"{group}.boxes.all.mAcc1", "image": f"zeroshot.{group}.top1"},
    )


def columns_of(metrics: Metrics, group: str) -> Metrics:
    """Return the figures of one group under the names of the quick start's report.

    These are "GROUP.READOUT.mAcc1", "GROUP.image.top1", "GROUP.retrieval.t2i.R@1" and the like.
    """
    found = {}
    for name in (*OUTPUTS, "crops"):
        for figure in ("mAcc1", "mAcc5"):
            if (value := metrics.get(f"{group}.{name}.all.{figure}")) is not None:
                found[f"{group}.{name}.{figure}"] = value

    for figure in ("top1", "top5"):
        found[f"{group}.image.{figure}"] = metrics[f"zeroshot.{group}.{figure}"]
    for name, value in metrics.items():
        if name.startswith((f"{group}.pointing", f"{group}.naming")):
            found[name] = value
    for figure in ("i2t.R@1", "i2t.R@5", "t2i.R@1", "t2i.R@5"):
        found[f"{group}.retrieval.{figure}"] = metrics[f"retrieval.{group}.{figure}"]
    return found


def accuracy_picture(rows: Mapping[str, Sequence[Metrics]], group: str) -> Figure:
    """Draw what every arm gains and costs in one group, as bars."""
    summaries = {title: summarize(runs) for title, runs in rows.items()}
    measured = next(iter(summaries.values()))[0]
    names = ("pointing", "naming.boxes", "image.top1")
    shown = {f"{group}.{name}": words.COLUMNS[name].replace(" ", "\n", 1) for name in names}
    shown = {name: title for name, title in shown.items() if name in measured}
    return accuracy_bars(
        {title: means for title, (means, _) in summaries.items()},
        metrics=list(shown),
        names=shown,
        errors={title: spread for title, (_, spread) in summaries.items() if spread} or None,
        title=f"What one pass gains, and what images cost: {group.replace('_', ' ')}",
    )


def write_quickstart(
    folder: Path, plan: Plan, results: Results, data: ComparisonData, model: RegionModel
) -> str:
    """Write report.json, report.md and the figures, and return the tables as text."""
    groups = [group for part in data.regions for group in part.groups]
    rows = {}
    for title, runs in {**results.rows, **mixed_rows(plan, results)}.items():
        rows[title] = [_all_columns(run, groups) for run in runs]

    tables, details = [], []
    for group, part in zip(groups, data.regions, strict=True):
        scenes, classes = len(part.scenes), len(part.embeddings)
        head = f"{group.replace('_', ' ')}: {scenes} scenes"
        tables.append(f"**{head}, percent**\n\n{words.word_table(rows, group)}")
        columns = {f"{group}.{column}": title for column, title in COLUMNS.items()}
        head = f"{head}, one name of {classes}, percent"
        details.append(f"**{head}**\n\n{result_table(rows, columns)}")

    arms = {title: rows[title] for title in results.rows}
    names = (f"{groups[0]}.boxes.all.mAcc1", f"zeroshot.{groups[0]}.top1")
    figures = {
        "accuracy of every arm": accuracy_picture(arms, groups[0]),
        "region accuracy against image accuracy": tradeoff_of(plan, results, names),
    }
    if "clim" in plan.arms:
        trained = copy.deepcopy(model)
        set_image_tower(trained, results.towers[ARMS["clim"].title])
        set_image_tower(model, results.towers[plan.start])
        models = {"before": model, "after CLIM": trained}
        part = data.regions[0]
        side = plan.options.region_px
        figures = {"before_after": words.before_after(models, part, side), **figures}
    write_report(
        folder,
        title="CLIM quick start",
        metrics=with_spreads(rows),
        config=about(plan, model),
        figures=figures,
        notes=[*tables, words.NOTE, *details, NOTE],
    )
    return "\n\n".join(tables).replace("**", "")


def _all_columns(metrics: Metrics, groups: Sequence[str]) -> Metrics:
    found: Metrics = {}
    for group in groups:
        found |= columns_of(metrics, group)
    return found
