"""Recipes: functions that return the complete configuration of a run.

`clim-train list` prints them, `clim-train show NAME` prints one in full, and `clim-train NAME
--section.option value` runs one with changes. Where the images are is never part of a recipe: say
it with `--data.shards` or `--data.images`.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_train.recipes.clim import (
        clim_cc3m_vitb16 as clim_cc3m_vitb16,
        clim_coco_evab16 as clim_coco_evab16,
        clim_coco_vitb16 as clim_coco_vitb16,
        clim_lvis_vitb16 as clim_lvis_vitb16,
        clim_quickstart as clim_quickstart,
    )
    from clim_train.recipes.clipself import (
        clipself_coco_patches_evab16 as clipself_coco_patches_evab16,
        clipself_coco_patches_eval14 as clipself_coco_patches_eval14,
        clipself_coco_proposals_evab16 as clipself_coco_proposals_evab16,
        clipself_coco_proposals_eval14 as clipself_coco_proposals_eval14,
        clipself_lvis_patches_evab16 as clipself_lvis_patches_evab16,
        clipself_lvis_patches_eval14 as clipself_lvis_patches_eval14,
    )
    from clim_train.recipes.detic import (
        detic_coco_base as detic_coco_base,
        detic_coco_captions as detic_coco_captions,
        detic_coco_tags as detic_coco_tags,
        detic_lvis_base as detic_lvis_base,
        detic_lvis_captions as detic_lvis_captions,
        detic_lvis_clim as detic_lvis_clim,
    )
    from clim_train.recipes.fvit import (
        fvit_coco_evab16 as fvit_coco_evab16,
        fvit_coco_eval14 as fvit_coco_eval14,
        fvit_lvis_evab16 as fvit_lvis_evab16,
        fvit_lvis_eval14 as fvit_lvis_eval14,
    )
    from clim_train.recipes.fvlm import (
        fvlm_coco_vitb16 as fvlm_coco_vitb16,
        fvlm_lvis_rn50x64 as fvlm_lvis_rn50x64,
        fvlm_lvis_vitb16 as fvlm_lvis_vitb16,
    )
    from clim_train.recipes.regionclip import (
        regionclip_coco_evab16 as regionclip_coco_evab16,
        regionclip_coco_eval14 as regionclip_coco_eval14,
    )
    from clim_train.recipes.registry import (
        Recipe as Recipe,
        RunFacts as RunFacts,
        recipe as recipe,
        recipe_named as recipe_named,
    )
    from clim_train.recipes.table import (
        RECIPES as RECIPES,
        find_recipe as find_recipe,
        recipe_table as recipe_table,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "RECIPES": "clim_train.recipes.table",
            "Recipe": "clim_train.recipes.registry",
            "RunFacts": "clim_train.recipes.registry",
            "clim_cc3m_vitb16": "clim_train.recipes.clim",
            "clim_coco_evab16": "clim_train.recipes.clim",
            "clim_coco_vitb16": "clim_train.recipes.clim",
            "clim_lvis_vitb16": "clim_train.recipes.clim",
            "clim_quickstart": "clim_train.recipes.clim",
            "clipself_coco_patches_evab16": "clim_train.recipes.clipself",
            "clipself_coco_patches_eval14": "clim_train.recipes.clipself",
            "clipself_coco_proposals_evab16": "clim_train.recipes.clipself",
            "clipself_coco_proposals_eval14": "clim_train.recipes.clipself",
            "clipself_lvis_patches_evab16": "clim_train.recipes.clipself",
            "clipself_lvis_patches_eval14": "clim_train.recipes.clipself",
            "detic_coco_base": "clim_train.recipes.detic",
            "detic_coco_captions": "clim_train.recipes.detic",
            "detic_coco_tags": "clim_train.recipes.detic",
            "detic_lvis_base": "clim_train.recipes.detic",
            "detic_lvis_captions": "clim_train.recipes.detic",
            "detic_lvis_clim": "clim_train.recipes.detic",
            "find_recipe": "clim_train.recipes.table",
            "fvit_coco_evab16": "clim_train.recipes.fvit",
            "fvit_coco_eval14": "clim_train.recipes.fvit",
            "fvit_lvis_evab16": "clim_train.recipes.fvit",
            "fvit_lvis_eval14": "clim_train.recipes.fvit",
            "fvlm_coco_vitb16": "clim_train.recipes.fvlm",
            "fvlm_lvis_rn50x64": "clim_train.recipes.fvlm",
            "fvlm_lvis_vitb16": "clim_train.recipes.fvlm",
            "recipe": "clim_train.recipes.registry",
            "recipe_named": "clim_train.recipes.registry",
            "recipe_table": "clim_train.recipes.table",
            "regionclip_coco_evab16": "clim_train.recipes.regionclip",
            "regionclip_coco_eval14": "clim_train.recipes.regionclip",
        },
    )
