"""Training of the heads: options, data, task and recipes.

What is public stands in the table of the package's README.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from flmm.training.build import build_trainer as build_trainer
    from flmm.training.config import (
        FeatureCacheConfig as FeatureCacheConfig,
        GroundedModelConfig as GroundedModelConfig,
        GroundingConfig as GroundingConfig,
        GroundingDataConfig as GroundingDataConfig,
    )
    from flmm.training.data import GroundingLoader as GroundingLoader
    from flmm.training.feature_cache import (
        FeatureCache as FeatureCache,
        frozen_facts as frozen_facts,
    )
    from flmm.training.recipes import find_recipe as find_recipe
    from flmm.training.task import GroundingTask as GroundingTask
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "FeatureCache": "flmm.training.feature_cache",
            "FeatureCacheConfig": "flmm.training.config",
            "GroundedModelConfig": "flmm.training.config",
            "GroundingConfig": "flmm.training.config",
            "GroundingDataConfig": "flmm.training.config",
            "GroundingLoader": "flmm.training.data",
            "GroundingTask": "flmm.training.task",
            "build_trainer": "flmm.training.build",
            "find_recipe": "flmm.training.recipes",
            "frozen_facts": "flmm.training.feature_cache",
        },
    )
