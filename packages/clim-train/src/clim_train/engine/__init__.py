"""DeepSpeed behind one class; no other folder imports it.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_train.engine.deepspeed_compat import start_distributed as start_distributed
    from clim_train.engine.engine import Engine as Engine
    from clim_train.engine.module import (
        EngineModule as EngineModule,
        trained_entries as trained_entries,
    )
    from clim_train.engine.optim import build_optimizer as build_optimizer
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "Engine": "clim_train.engine.engine",
            "EngineModule": "clim_train.engine.module",
            "build_optimizer": "clim_train.engine.optim",
            "start_distributed": "clim_train.engine.deepspeed_compat",
            "trained_entries": "clim_train.engine.module",
        },
    )
