"""Readers of open_clip image towers.

The table "Public names" of the package's README says what each name is.
"""

from typing import TYPE_CHECKING

from clim_models.lazy import lazy_names

if TYPE_CHECKING:
    from clim_models.towers.compiled import compile_blocks as compile_blocks
    from clim_models.towers.evaluation import evaluation_mode as evaluation_mode
    from clim_models.towers.registry import TowerFactory as TowerFactory, find_tower as find_tower
    from clim_models.towers.tower import GradientPath as GradientPath, Stem as Stem, Tower as Tower
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "GradientPath": "clim_models.towers.tower",
            "Stem": "clim_models.towers.tower",
            "Tower": "clim_models.towers.tower",
            "TowerFactory": "clim_models.towers.registry",
            "compile_blocks": "clim_models.towers.compiled",
            "evaluation_mode": "clim_models.towers.evaluation",
            "find_tower": "clim_models.towers.registry",
        },
    )
