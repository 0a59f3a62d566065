"""The scene that ships with `clim-eval show --example`: drawings on a ground, their words and their
true boxes. `python -m clim_train.experiments.comparison.ship_scene` made it."""

import json
from dataclasses import dataclass
from pathlib import Path

EXAMPLE_FOLDER = Path(__file__).parents[1] / "embedded"


@dataclass(frozen=True)
class ExampleScene:
    """A scene of n drawings.

    Attributes:
        image: path of the picture.
        words: n, all different.
        boxes: n true boxes, XYXY in [0, 1]; box i shows word i.
        chosen: how this scene was chosen, in words.
    """

    image: Path
    words: tuple[str, ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    chosen: str


def read_example(folder: Path = EXAMPLE_FOLDER) -> ExampleScene:
    """Return the scene that ships with the package."""
    found = json.loads((folder / "scene.json").read_text(encoding="utf-8"))
    boxes = tuple(tuple(box) for box in found["boxes"])
    return ExampleScene(folder / "scene.png", tuple(found["words"]), boxes, found["chosen"])
