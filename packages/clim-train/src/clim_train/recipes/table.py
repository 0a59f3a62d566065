"""The table of all recipes: importing this module enters every one of them."""

from clim_models import SHIPPED_FILES

from clim_train.config import TrainConfig
from clim_train.methods.table import find_method

# These modules enter their recipes into `RECIPES`.
from clim_train.recipes import (
    clim as clim,
    clipself as clipself,
    detic as detic,
    fvit as fvit,
    fvlm as fvlm,
    regionclip as regionclip,
)
from clim_train.recipes.catalogue import RecipeSummary, list_recipes, read_catalogue
from clim_train.recipes.registry import RECIPES as RECIPES, Recipe, recipe_named


def find_recipe(name: str) -> Recipe[TrainConfig]:
    """Return the recipe called `name`. Raises ValueError with all names, and the closest first."""
    return recipe_named(name, RECIPES)


def recipe_table() -> str:
    """Return all recipes as a Markdown table, sorted by method."""
    return list_recipes(summaries())


def summaries() -> dict[str, RecipeSummary]:
    """Return the summaries of all recipes; the memory comes from the catalogue."""
    return {name: summarize(name, entry) for name, entry in RECIPES.items()}


def summarize(name: str, entry: Recipe[TrainConfig]) -> RecipeSummary:
    """Return the summary of a recipe."""
    config = entry()
    schedule = config.schedule
    known = read_catalogue().get(name)
    return RecipeSummary(
        method=config.task.name,
        backbone=config.model.name,
        data=entry.facts.data,
        gpus=entry.facts.gpus,
        batch=config.data.batch_size,
        length=f"{schedule.steps:,} steps" if schedule.steps else f"{schedule.epochs} epochs",
        blocks=config.model.unlocked_blocks,
        px=find_method(config.task.name).data.largest_px(config.data),
        alpha=config.run.alpha,
        gb=known.gb if known else None,
        offline=config.model.pretrained in SHIPPED_FILES,
    )
