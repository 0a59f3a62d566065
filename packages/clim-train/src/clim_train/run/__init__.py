"""A run: its folder, checkpoints and metrics, and how it stops, fails and continues.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_train.run.finite import FiniteWatch as FiniteWatch
    from clim_train.run.manifest import checksums as checksums, write_manifest as write_manifest
    from clim_train.run.metrics import RunningMean as RunningMean
    from clim_train.run.peers import AgreedError as AgreedError, failures_shared as failures_shared
    from clim_train.run.randomness import seed_everything as seed_everything
    from clim_train.run.stopping import EXIT_STOPPED as EXIT_STOPPED
    from clim_train.transfer import to_device as to_device
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "AgreedError": "clim_train.run.peers",
            "EXIT_STOPPED": "clim_train.run.stopping",
            "FiniteWatch": "clim_train.run.finite",
            "RunningMean": "clim_train.run.metrics",
            "checksums": "clim_train.run.manifest",
            "failures_shared": "clim_train.run.peers",
            "seed_everything": "clim_train.run.randomness",
            "to_device": "clim_train.transfer",
            "write_manifest": "clim_train.run.manifest",
        },
    )
