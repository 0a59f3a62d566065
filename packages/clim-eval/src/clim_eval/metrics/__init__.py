"""Metrics as functions of arrays.

What is public stands in the table of the package's README.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_eval.metrics.detection import (
        CategoryPrecision as CategoryPrecision,
        category_precision as category_precision,
        open_vocabulary_ap as open_vocabulary_ap,
    )
    from clim_eval.metrics.lvis import lvis_ap as lvis_ap
    from clim_eval.metrics.masks import ious as ious
    from clim_eval.metrics.narratives import ORIGINAL_STEP as ORIGINAL_STEP
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "CategoryPrecision": "clim_eval.metrics.detection",
            "ORIGINAL_STEP": "clim_eval.metrics.narratives",
            "category_precision": "clim_eval.metrics.detection",
            "ious": "clim_eval.metrics.masks",
            "lvis_ap": "clim_eval.metrics.lvis",
            "open_vocabulary_ap": "clim_eval.metrics.detection",
        },
    )
