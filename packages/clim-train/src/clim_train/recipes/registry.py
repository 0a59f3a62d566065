"""What a recipe is, how one is found, and the table of all."""

import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass

from clim_train.config import TrainConfig
from clim_train.methods.pairs import PairDataConfig


@dataclass(frozen=True)
class RunFacts:
    """What the paper's run of a recipe had beside its options.

    gpus: how many GPUs shared the steps. images: of the data set, per epoch; None where that is the
    user's. data: the data set, in a few words.
    """

    gpus: int
    images: int | None
    data: str


class Recipe:
    """A function without arguments that returns a `TrainConfig`, and the facts of the run it
    describes."""

    def __init__(self, function: Callable[[], TrainConfig], facts: RunFacts):
        functools.update_wrapper(self, function)
        self._function, self.facts = function, facts

    def __call__(self) -> TrainConfig:
        return self._function()


RECIPES: dict[str, Recipe] = {}


def recipe(
    *, gpus: int, images: int | None, data: str
) -> Callable[[Callable[[], TrainConfig]], Recipe]:
    """Decorator that enters a function into `RECIPES`; the arguments are those of `RunFacts`."""

    def register(function: Callable[[], TrainConfig]) -> Recipe:
        RECIPES[function.__name__] = entry = Recipe(function, RunFacts(gpus, images, data))
        return entry

    return register


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`. Raises ValueError with all names, and the closest first."""
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"there is no recipe {name!r}: {hint}The recipes are {', '.join(RECIPES)}")
    return RECIPES[name]


def recipe_table() -> str:
    """Every recipe with its backbone, data, step, length and alpha, as a Markdown table."""
    head = ("recipe", "backbone", "data", "GPUs x batch", "length", "blocks", "px", "alpha")
    rows = [head]
    for name, entry in RECIPES.items():
        config = entry()
        length = (
            f"{config.schedule.steps} steps"
            if config.schedule.steps
            else f"{config.schedule.epochs} epochs"
        )
        batch = f"{entry.facts.gpus} x {config.data.batch_size}"
        blocks = str(config.model.unlocked_blocks)
        px, alpha = str(image_px(config)), f"{config.run.alpha:g}"
        rows.append((name, config.model.name, entry.facts.data, batch, length, blocks, px, alpha))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def image_px(config: TrainConfig) -> int:
    """Side of the largest images of a step."""
    return (
        config.data.mosaic.canvas_px
        if isinstance(config.data, PairDataConfig)
        else config.data.image_px
    )
