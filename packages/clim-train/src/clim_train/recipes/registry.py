"""What a recipe is, how one is found, and the table of all."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from clim_eval.reports.tables import markdown

from clim_train.config import TrainConfig
from clim_train.methods.table import find_method

Config = TypeVar("Config")


@dataclass(frozen=True)
class RunFacts:
    """What is known of the paper's run besides its options.

    gpus: number of GPUs that shared the steps. images: of the data set, per epoch; None where that
    is the user's. data: the data set, in a few words.
    """

    gpus: int
    images: int | None
    data: str


@dataclass(frozen=True)
class Recipe(Generic[Config]):
    """A function that returns the configuration of a run, and the facts of the run it describes."""

    function: Callable[[], Config]
    facts: RunFacts

    def __call__(self) -> Config:
        return self.function()


RECIPES: dict[str, Recipe[TrainConfig]] = {}


def recipe(
    *, gpus: int, images: int | None, data: str
) -> Callable[[Callable[[], TrainConfig]], Callable[[], TrainConfig]]:
    """Enter the decorated function into `RECIPES`; the arguments are those of `RunFacts`."""

    def register(function: Callable[[], TrainConfig]) -> Callable[[], TrainConfig]:
        RECIPES[function.__name__] = Recipe(function, RunFacts(gpus, images, data))
        return function

    return register


def find_recipe(name: str) -> Recipe[TrainConfig]:
    """Return the recipe called `name`. Raises ValueError with all names, and the closest first."""
    return recipe_named(name, RECIPES)


def recipe_named(name: str, recipes: Mapping[str, Recipe[Config]]) -> Recipe[Config]:
    """Return the recipe called `name` of any table; see `find_recipe`."""
    if name not in recipes:
        close = difflib.get_close_matches(name, recipes, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"there is no recipe {name!r}: {hint}The recipes are {', '.join(recipes)}")
    return recipes[name]


def recipe_table() -> str:
    """Return all recipes with backbone, data, step, length and alpha, as a Markdown table."""
    head = ("recipe", "backbone", "data", "GPUs x batch", "length", "blocks", "px", "alpha")
    rows = []
    for name, entry in RECIPES.items():
        config = entry()
        schedule = config.schedule
        length = f"{schedule.steps} steps" if schedule.steps else f"{schedule.epochs} epochs"
        rows.append(
            (
                name,
                config.model.name,
                entry.facts.data,
                f"{entry.facts.gpus} x {config.data.batch_size}",
                length,
                str(config.model.unlocked_blocks),
                str(find_method(config.task.name).data.largest_px(config.data)),
                f"{config.run.alpha:g}",
            )
        )
    return markdown(head, rows, text=True)
