"""Recipes: their facts, their decorator, and the look-up in a table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from clim_train.config import TrainConfig
from clim_train.recipes.catalogue import unknown_recipe

Config = TypeVar("Config")


@dataclass(frozen=True)
class RunFacts:
    """Facts of the paper's run that are not options.

    gpus: number of GPUs that shared the steps. images: per epoch of the data set; None where the
    data are the user's. data: the data set, in a few words.
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
    """Enter the decorated function into `RECIPES`; for the arguments see `RunFacts`."""

    def register(function: Callable[[], TrainConfig]) -> Callable[[], TrainConfig]:
        RECIPES[function.__name__] = Recipe(function, RunFacts(gpus, images, data))
        return function

    return register


def recipe_named(name: str, recipes: Mapping[str, Recipe[Config]]) -> Recipe[Config]:
    """Return the recipe called `name` of any table of recipes.

    Raises ValueError with all names, and the closest first.
    """
    if name not in recipes:
        raise ValueError(unknown_recipe(name, recipes))
    return recipes[name]
