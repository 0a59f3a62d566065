"""The first screen of the quick start: pointing, naming, the loss in image accuracy, and scenes
before and after CLIM."""

from collections.abc import Mapping, Sequence

import numpy as np
from clim_eval import locate_texts
from clim_eval.pictures import NamedBoxes, SceneRow, SceneView, scenes_figure
from clim_models import RegionModel
from matplotlib.figure import Figure

from clim_train.experiments.comparison.data import Metrics, RegionSet
from clim_train.experiments.comparison.report import result_table

COLUMNS = {
    "pointing": "points at a word",
    "naming.boxes": "names a box",
    "naming.boxes_attention": "by class token per box",
    "naming.crops": "by crop per box",
    "image.top1": "image top-1",
}
CHANCE = "chance"
NOTE = (
    "Points at a word: the peak of the word's map lies in its true box, asked for each of the "
    "scene's five words. Names a box: of these five words, the box is most similar to its own. "
    "Both are read from one pass of the dense features. A class token, or a crop, per known box "
    "costs a pass or an image for each box, and cannot point. Image top-1, among all classes, is "
    "the price."
)


def word_table(rows: Mapping[str, Sequence[Metrics]], group: str) -> str:
    """Return Markdown: pointing, naming and image accuracy of a group in percent, chance last.

    Args:
        rows: title -> its runs, with the figures "GROUP.pointing", "GROUP.image.top1", ....
    """
    columns = {f"{group}.{name}": title for name, title in COLUMNS.items()}
    first = next(iter(rows.values()))[0]
    shown = {name: title for name, title in columns.items() if name in first}
    return result_table({**rows, CHANCE: [_chance(first, group)]}, shown)


def _chance(metrics: Metrics, group: str) -> Metrics:
    """Return the accuracy of random guessing, under the names of the figures."""
    by_name = {
        "pointing": "pointing.chance",
        "naming.boxes": "naming.chance",
        "naming.boxes_attention": "naming.chance",
        "naming.crops": "naming.chance",
    }
    return {
        f"{group}.{name}": metrics[f"{group}.{chance}"]
        for name, chance in by_name.items()
        if f"{group}.{chance}" in metrics
    }


def before_after(
    models: Mapping[str, RegionModel], part: RegionSet, image_px: int, count: int = 4
) -> Figure:
    """Draw the first scenes as each model sees them; the map is of the scene's first word.

    Args:
        models: name -> model, at least two; they share the text tower.
        image_px: side at which scenes are read.
    """
    rows = []
    right = dict.fromkeys(models, 0)
    total = 0
    for number in range(min(count, len(part.scenes))):
        row = _scene_row(models, part, image_px, number)
        rows.append(row)
        total += len(next(iter(row.views.values())).named.names)
        for name, view in row.views.items():
            right[name] += sum(view.named.right or ())

    told = ", ".join(f"{count} {name}" for name, count in right.items())
    return scenes_figure(rows, title=f"Boxes of {total} that get their own word: {told}")


def _scene_row(
    models: Mapping[str, RegionModel], part: RegionSet, image_px: int, number: int
) -> SceneRow:
    """Ask every model about one scene."""
    sample = part.scenes[number]
    words = [part.scenes.class_names[label] for label in sample.labels.tolist()]
    texts = (part.embeddings if part.words is None else part.words)[sample.labels]

    views = {}
    for name, model in models.items():
        found = locate_texts(model, sample.image, texts, image_px=image_px, boxes=sample.boxes)
        assert found.box_scores is not None
        picks = found.box_scores.argmax(axis=1)
        right = (picks == np.arange(len(words))).tolist()
        named = NamedBoxes(sample.boxes.numpy(), [words[pick] for pick in picks], right)
        views[name] = SceneView(named, found.maps[0], found.peaks[0])
    return SceneRow(sample.image, words[0], sample.boxes[0].numpy(), views)
