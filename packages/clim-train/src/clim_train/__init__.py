"""DeepSpeed training of region features: CLIM and its recipes. See README.md; names here are the API."""

from importlib import import_module

from clim_train.version import __version__

# Loaded on first use: torch, open_clip and deepspeed take seconds to import.
_EXPORTS = {
    "BoxDataConfig": "config",
    "CheckpointNotWritten": "checkpoints",
    "ClimConfig": "config",
    "ClimTask": "tasks.clim",
    "ClipSelfConfig": "config",
    "ClipSelfTask": "tasks.clipself",
    "CropDataConfig": "config",
    "EngineConfig": "config",
    "EvaluationConfig": "config",
    "ModelConfig": "config",
    "NotFiniteError": "finite",
    "OptimConfig": "config",
    "PairDataConfig": "config",
    "PeerFailed": "peers",
    "RegionClipConfig": "config",
    "RegionClipTask": "tasks.regionclip",
    "RunConfig": "config",
    "ScheduleConfig": "config",
    "Task": "task",
    "TrainConfig": "config",
    "Trainer": "trainer",
    "TrainingStopped": "stopping",
    "build_evaluators": "build",
    "build_loader": "build",
    "build_model": "build",
    "build_task": "build",
    "deepspeed_config": "engine",
    "read_metrics": "metrics",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
