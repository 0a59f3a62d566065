"""Make the scene of `clim-eval show --example`: ``python -m
clim_train.experiments.comparison.ship_scene``.

It is the first test scene of the quick start whose result is that of the average scene, so that the
picture promises no more than the table.
"""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from clim_data.drawings import compose_scenes, load_emoji
from clim_eval import SceneWords, WordsInScenes
from clim_eval.pictures import EXAMPLE_FOLDER
from clim_models import AFTER_CLIM, SHIPPED, TINY, create_model

from clim_train.experiments.comparison.drawings import plain_features, scene_regions

SCENES = 200
SCENE_PX = 192


def typical_scene(before: Sequence[SceneWords], after: Sequence[SceneWords]) -> int:
    """Return the number of the first scene whose four counts are the rounded means."""
    counts = [_right(a) + _right(b) for a, b in zip(before, after, strict=True)]
    means = [round(sum(column) / len(counts)) for column in zip(*counts, strict=True)]
    return counts.index(means)


def _right(scene: SceneWords) -> list[int]:
    """Count the words that are found and the boxes that are named right."""
    return [int(scene.points.sum()), int(scene.names["boxes"].sum())]


def main() -> None:
    """Write the scene into clim-eval."""
    emoji = load_emoji()
    split = emoji.split()
    with tempfile.TemporaryDirectory() as folder:
        scenes = compose_scenes(
            Path(folder) / "scenes",
            vendor=(split.test_vendor,),
            concepts=split.train_concepts,
            count=SCENES,
            emoji=emoji,
            seed=0,
        )
        answers = []
        for tag in (SHIPPED, AFTER_CLIM):
            model = create_model(TINY, tag)
            data = scene_regions(scenes, model, SCENE_PX)
            words = plain_features(model, split.train_concepts)
            answers.append(WordsInScenes(model, words, attention=False).collect(data))

        number = typical_scene(*answers)
        sample = data[number]
        record = {
            "words": [data.class_names[label] for label in sample.labels.tolist()],
            "boxes": sample.boxes.double().round(decimals=4).tolist(),
            "chosen": f"number {number + 1}: the first that comes out as the average of {SCENES}",
            "drawings": "Twemoji, CC-BY-4.0, (c) Twitter, Inc and other contributors",
        }
        image = sorted(Path(scenes.images).iterdir())[number]
        EXAMPLE_FOLDER.mkdir(exist_ok=True)
        shutil.copyfile(image, EXAMPLE_FOLDER / "scene.png")
    (EXAMPLE_FOLDER / "scene.json").write_text(json.dumps(record, indent=2) + "\n")
    print(f"{EXAMPLE_FOLDER}: {record['words']}, {record['chosen']}")


if __name__ == "__main__":
    main()
