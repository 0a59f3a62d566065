"""DeepSpeed training of region features: CLIM, CLIPSelf, RegionCLIP-style, and their recipes.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

from clim_train.version import __version__ as __version__

if TYPE_CHECKING:
    from clim_train.build import (
        build_evaluators as build_evaluators,
        build_loader as build_loader,
        build_model as build_model,
        build_task as build_task,
    )
    from clim_train.config import TrainConfig as TrainConfig
    from clim_train.engine.engine import deepspeed_config as deepspeed_config
    from clim_train.methods.boxes import BoxDataConfig as BoxDataConfig
    from clim_train.methods.clim import (
        ClimConfig as ClimConfig,
        ClimTask as ClimTask,
    )
    from clim_train.methods.clipself import (
        ClipSelfConfig as ClipSelfConfig,
        ClipSelfTask as ClipSelfTask,
    )
    from clim_train.methods.crops import CropDataConfig as CropDataConfig
    from clim_train.methods.pairs import PairDataConfig as PairDataConfig
    from clim_train.methods.regionclip import (
        RegionClipConfig as RegionClipConfig,
        RegionClipTask as RegionClipTask,
    )
    from clim_train.options.sections import (
        EngineConfig as EngineConfig,
        EvaluationConfig as EvaluationConfig,
        ModelConfig as ModelConfig,
        OptimConfig as OptimConfig,
        RunConfig as RunConfig,
        ScheduleConfig as ScheduleConfig,
    )
    from clim_train.run.checkpoints import CheckpointWriteError as CheckpointWriteError
    from clim_train.run.finite import NotFiniteError as NotFiniteError
    from clim_train.run.metrics import read_metrics as read_metrics
    from clim_train.run.peers import PeerFailedError as PeerFailedError
    from clim_train.run.stopping import TrainingStopped as TrainingStopped
    from clim_train.schedule import (
        learning_rate as learning_rate,
        total_steps as total_steps,
    )
    from clim_train.task import (
        Loader as Loader,
        Task as Task,
    )
    from clim_train.trainer import Trainer as Trainer
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "BoxDataConfig": "clim_train.methods.boxes",
            "CheckpointWriteError": "clim_train.run.checkpoints",
            "ClimConfig": "clim_train.methods.clim",
            "ClimTask": "clim_train.methods.clim",
            "ClipSelfConfig": "clim_train.methods.clipself",
            "ClipSelfTask": "clim_train.methods.clipself",
            "CropDataConfig": "clim_train.methods.crops",
            "EngineConfig": "clim_train.options.sections",
            "EvaluationConfig": "clim_train.options.sections",
            "Loader": "clim_train.task",
            "ModelConfig": "clim_train.options.sections",
            "NotFiniteError": "clim_train.run.finite",
            "OptimConfig": "clim_train.options.sections",
            "PairDataConfig": "clim_train.methods.pairs",
            "PeerFailedError": "clim_train.run.peers",
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
            "learning_rate": "clim_train.schedule",
            "read_metrics": "clim_train.run.metrics",
            "total_steps": "clim_train.schedule",
        },
        renamed={
            "CheckpointNotWritten": "CheckpointWriteError",
            "PeerFailed": "PeerFailedError",
        },
    )
