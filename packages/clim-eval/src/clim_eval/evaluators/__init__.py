"""Evaluators: each runs a model over data and returns its metrics.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_eval.evaluators.cached import CachedItems as CachedItems
    from clim_eval.evaluators.detections import (
        FoundObjects as FoundObjects,
        Picture as Picture,
        coco_results as coco_results,
    )
    from clim_eval.evaluators.sharing import progress_bar as progress_bar
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "CachedItems": "clim_eval.evaluators.cached",
            "FoundObjects": "clim_eval.evaluators.detections",
            "Picture": "clim_eval.evaluators.detections",
            "coco_results": "clim_eval.evaluators.detections",
            "progress_bar": "clim_eval.evaluators.sharing",
        },
        renamed={"live": "progress_bar"},
    )
