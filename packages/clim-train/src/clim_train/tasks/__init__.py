"""Training methods: each a model and a loss behind the `Task` protocol."""

from clim_train.tasks.clim import ClimTask

__all__ = ["ClimTask"]
