"""Metrics as functions of arrays.

What is public stands in the table of the package's README.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_eval.metrics.masks import ious as ious
    from clim_eval.metrics.narratives import ORIGINAL_STEP as ORIGINAL_STEP
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "ORIGINAL_STEP": "clim_eval.metrics.narratives",
            "ious": "clim_eval.metrics.masks",
        },
    )
