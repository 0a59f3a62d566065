"""Training methods: each a model and a loss behind the `Task` protocol."""

from clim_train.tasks.clim import ClimTask
from clim_train.tasks.clipself import ClipSelfTask
from clim_train.tasks.regionclip import RegionClipTask

__all__ = ["ClimTask", "ClipSelfTask", "RegionClipTask"]
