"""A run: its folder, checkpoints and metrics, and how it stops, fails and continues.

What is public stands in the table of the package's README.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_train.run.manifest import (
        checksums as checksums,
        write_manifest as write_manifest,
    )
    from clim_train.run.peers import failures_shared as failures_shared
    from clim_train.run.randomness import seed_everything as seed_everything
    from clim_train.run.weights import checksum as checksum
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "checksum": "clim_train.run.weights",
            "checksums": "clim_train.run.manifest",
            "failures_shared": "clim_train.run.peers",
            "seed_everything": "clim_train.run.randomness",
            "write_manifest": "clim_train.run.manifest",
        },
    )
