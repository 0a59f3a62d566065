"""Training of the heads: options, data, task and recipes.

The table in the README of the package lists the public names.
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
    from flmm.training.presence import (
        PresenceOptions as PresenceOptions,
        Probe as Probe,
        ProbedImage as ProbedImage,
        ProbedPhrases as ProbedPhrases,
        fit_presence as fit_presence,
        ground_probes as ground_probes,
    )
    from flmm.training.probe_files import (
        ProbedFile as ProbedFile,
        ProbedSamples as ProbedSamples,
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
            "PresenceOptions": "flmm.training.presence",
            "Probe": "flmm.training.presence",
            "ProbedFile": "flmm.training.probe_files",
            "ProbedImage": "flmm.training.presence",
            "ProbedPhrases": "flmm.training.presence",
            "ProbedSamples": "flmm.training.probe_files",
            "build_trainer": "flmm.training.build",
            "find_recipe": "flmm.training.recipes",
            "fit_presence": "flmm.training.presence",
            "frozen_facts": "flmm.training.feature_cache",
            "ground_probes": "flmm.training.presence",
        },
    )
