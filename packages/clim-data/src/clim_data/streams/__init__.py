"""Endless, resumable batches for training.

What is public stands in the table of the package's README.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_data.streams.epochs import (
        EpochLoader as EpochLoader,
        check_stream as check_stream,
        global_steps as global_steps,
        rank_share as rank_share,
    )
    from clim_data.streams.region_batches import CropBuilder as CropBuilder
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "CropBuilder": "clim_data.streams.region_batches",
            "EpochLoader": "clim_data.streams.epochs",
            "check_stream": "clim_data.streams.epochs",
            "global_steps": "clim_data.streams.epochs",
            "rank_share": "clim_data.streams.epochs",
        },
    )
