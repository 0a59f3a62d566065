"""The table of all recipes: importing this module enters every one of them."""

from clim_eval.reports import markdown

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
from clim_train.recipes.registry import RECIPES as RECIPES, Recipe, recipe_named


def find_recipe(name: str) -> Recipe[TrainConfig]:
    """Return the recipe called `name`. Raises ValueError with all names, and the closest first."""
    return recipe_named(name, RECIPES)


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
