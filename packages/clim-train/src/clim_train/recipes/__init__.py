"""Recipes: functions that return the complete configuration of a run, entered in `RECIPES` by
`recipe`.

`clim-train list` prints them, `clim-train show NAME` prints one in full, `clim-train NAME
--section.option value` runs one with changes. Where the images lie is never part of a recipe: say
it with `--data.shards` or `--data.images`.
"""

from clim_train.recipes.clim import (
    clim_cc3m_vitb16,
    clim_coco_evab16,
    clim_coco_vitb16,
    clim_lvis_vitb16,
    clim_quickstart,
)
from clim_train.recipes.clipself import (
    clipself_coco_patches_evab16,
    clipself_coco_patches_eval14,
    clipself_coco_proposals_evab16,
    clipself_coco_proposals_eval14,
    clipself_lvis_patches_evab16,
    clipself_lvis_patches_eval14,
)
from clim_train.recipes.regionclip import regionclip_coco_evab16, regionclip_coco_eval14
from clim_train.recipes.registry import RECIPES, Recipe, RunFacts, find_recipe, recipe, recipe_table

__all__ = [
    "RECIPES",
    "Recipe",
    "RunFacts",
    "clim_cc3m_vitb16",
    "clim_coco_evab16",
    "clim_coco_vitb16",
    "clim_lvis_vitb16",
    "clim_quickstart",
    "clipself_coco_patches_evab16",
    "clipself_coco_patches_eval14",
    "clipself_coco_proposals_evab16",
    "clipself_coco_proposals_eval14",
    "clipself_lvis_patches_evab16",
    "clipself_lvis_patches_eval14",
    "find_recipe",
    "recipe",
    "recipe_table",
    "regionclip_coco_evab16",
    "regionclip_coco_eval14",
]
