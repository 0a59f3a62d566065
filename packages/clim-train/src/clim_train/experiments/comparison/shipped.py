"""The first minute of the quick start: the shipped weights before and after CLIM, without a
training."""

from pathlib import Path

from clim_eval import ZeroShotClassification, write_report
from clim_eval.reports import to_jsonable
from clim_models import AFTER_CLIM, SHIPPED, TINY, RegionModel, create_model

from clim_train.experiments.comparison.data import ComparisonData, Metrics
from clim_train.experiments.comparison.drawings import DrawingOptions, embedded_data
from clim_train.experiments.comparison.measure import measure_words
from clim_train.experiments.comparison.words import NOTE, before_after, word_table
from clim_train.experiments.console import Stages

TITLES = {SHIPPED: "before: pretrained clim-tiny", AFTER_CLIM: "after CLIM"}
SCENES = 40


def measure_shipped(folder: Path, options: DrawingOptions) -> str:
    """Measure both shipped weights, write the report to `folder`, and return its tables.

    Raises:
        ValueError: the folder holds a training, whose report would be replaced.
    """
    if (folder / "runs").exists():
        raise ValueError(
            f"{folder} holds a training: choose another folder with --out, or add --train to go on "
            "with it"
        )
    stages = Stages(4)
    stages.begin(f"{options.scenes} scenes of each group")
    models = {tag: create_model(TINY, tag) for tag in TITLES}
    data = embedded_data(folder / "data", models[SHIPPED], options, train=False)

    rows: dict[str, list[Metrics]] = {}
    for tag, title in TITLES.items():
        stages.begin(title)
        rows[title] = [_figures(models[tag], data)]

    stages.begin("picture and report")
    tables = []
    for part in data.regions:
        for group in part.groups:
            head = f"{group.replace('_', ' ')}: {len(part.scenes)} scenes, percent"
            tables.append(f"**{head}**\n\n{word_table(rows, group)}")

    named = {"before": models[SHIPPED], "after CLIM": models[AFTER_CLIM]}
    write_report(
        folder,
        title="CLIM quick start: the shipped weights",
        metrics={title: runs[0] for title, runs in rows.items()},
        config={"weights": list(TITLES), "drawings": to_jsonable(options)},
        figures={"before_after": before_after(named, data.regions[0], options.scene_px)},
        notes=[*tables, NOTE],
    )
    return "\n\n".join(tables).replace("**", "")


def _figures(model: RegionModel, data: ComparisonData) -> Metrics:
    """Return pointing, naming and image accuracy of every group."""
    found: Metrics = {}
    for part in data.regions:
        found |= measure_words(model, part)
    for group, labelled in data.zeroshot.items():
        zeroshot = ZeroShotClassification(model, labelled.embeddings, batch_size=64)
        figures = zeroshot.run(labelled.images)
        found |= {f"{group}.image.{name}": value for name, value in figures.items()}
    return found
