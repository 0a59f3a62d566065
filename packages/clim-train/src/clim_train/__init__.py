"""DeepSpeed training of region features: CLIM and its recipes. See README.md; names here are the
API."""

from importlib import import_module

from clim_train.version import __version__

# Loaded on first use: torch, open_clip and deepspeed take seconds to import.
_EXPORTS = {
    "BoxDataConfig": "clim_train.methods.boxes",
    "CheckpointNotWritten": "clim_train.run.checkpoints",
    "ClimConfig": "clim_train.methods.clim",
    "ClimTask": "clim_train.methods.clim",
    "ClipSelfConfig": "clim_train.methods.clipself",
    "ClipSelfTask": "clim_train.methods.clipself",
    "CropDataConfig": "clim_train.methods.crops",
    "EngineConfig": "clim_train.options.sections",
    "EvaluationConfig": "clim_train.options.sections",
    "ModelConfig": "clim_train.options.sections",
    "NotFiniteError": "clim_train.run.finite",
    "OptimConfig": "clim_train.options.sections",
    "PairDataConfig": "clim_train.methods.pairs",
    "PeerFailed": "clim_train.run.peers",
    "RegionClipConfig": "clim_train.methods.regionclip",
    "RegionClipTask": "clim_train.methods.regionclip",
    "RunConfig": "clim_train.options.sections",
    "ScheduleConfig": "clim_train.options.sections",
    "Task": "clim_train.task",
    "TrainConfig": "clim_train.config",
    "Trainer": "clim_train.trainer",
    "TrainingStopped": "clim_train.run.stopping",
    "build_evaluators": "clim_train.build",
    "build_loader": "clim_train.build",
    "build_model": "clim_train.build",
    "build_task": "clim_train.build",
    "deepspeed_config": "clim_train.engine.engine",
    "read_metrics": "clim_train.run.metrics",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
