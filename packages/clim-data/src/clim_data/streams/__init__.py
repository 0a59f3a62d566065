"""Endless, resumable batches for training.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_data.streams.captioned_batches import CaptionedBatch as CaptionedBatch
    from clim_data.streams.captioned_loader import (
        CaptionedDetectionLoader as CaptionedDetectionLoader,
        CaptionSource as CaptionSource,
    )
    from clim_data.streams.detection_batches import ViewRules as ViewRules
    from clim_data.streams.epochs import (
        EpochLoader as EpochLoader,
        global_steps as global_steps,
        rank_share as rank_share,
    )
    from clim_data.streams.mixed import MixedBatch as MixedBatch
    from clim_data.streams.options import (
        CropRules as CropRules,
        StreamKeywords as StreamKeywords,
        StreamOptions as StreamOptions,
        choose_stream as choose_stream,
    )
    from clim_data.streams.region_batches import CropBuilder as CropBuilder
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "CaptionSource": "clim_data.streams.captioned_loader",
            "CaptionedBatch": "clim_data.streams.captioned_batches",
            "CaptionedDetectionLoader": "clim_data.streams.captioned_loader",
            "CropBuilder": "clim_data.streams.region_batches",
            "CropRules": "clim_data.streams.options",
            "EpochLoader": "clim_data.streams.epochs",
            "MixedBatch": "clim_data.streams.mixed",
            "StreamKeywords": "clim_data.streams.options",
            "StreamOptions": "clim_data.streams.options",
            "ViewRules": "clim_data.streams.detection_batches",
            "choose_stream": "clim_data.streams.options",
            "global_steps": "clim_data.streams.epochs",
            "rank_share": "clim_data.streams.epochs",
        },
    )
