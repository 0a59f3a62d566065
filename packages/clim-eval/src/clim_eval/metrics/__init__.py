"""Metrics as functions of arrays.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_eval.metrics.detection import (
        CategoryPrecision as CategoryPrecision,
        category_precision as category_precision,
        open_vocabulary_ap as open_vocabulary_ap,
    )
    from clim_eval.metrics.entities import phrase_boxes as phrase_boxes
    from clim_eval.metrics.generalized import generalized_metrics as generalized_metrics
    from clim_eval.metrics.lvis import lvis_ap as lvis_ap
    from clim_eval.metrics.masks import ious as ious
    from clim_eval.metrics.narratives import ORIGINAL_STEP as ORIGINAL_STEP
    from clim_eval.metrics.presence import (
        Reliability as Reliability,
        auroc as auroc,
        concept_scores as concept_scores,
        matthews as matthews,
        presence_accuracy as presence_accuracy,
        reliability as reliability,
        threshold_for as threshold_for,
    )
    from clim_eval.metrics.reasoning import reasoning_metrics as reasoning_metrics
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "CategoryPrecision": "clim_eval.metrics.detection",
            "ORIGINAL_STEP": "clim_eval.metrics.narratives",
            "Reliability": "clim_eval.metrics.presence",
            "auroc": "clim_eval.metrics.presence",
            "category_precision": "clim_eval.metrics.detection",
            "concept_scores": "clim_eval.metrics.presence",
            "generalized_metrics": "clim_eval.metrics.generalized",
            "ious": "clim_eval.metrics.masks",
            "lvis_ap": "clim_eval.metrics.lvis",
            "matthews": "clim_eval.metrics.presence",
            "open_vocabulary_ap": "clim_eval.metrics.detection",
            "phrase_boxes": "clim_eval.metrics.entities",
            "presence_accuracy": "clim_eval.metrics.presence",
            "reasoning_metrics": "clim_eval.metrics.reasoning",
            "reliability": "clim_eval.metrics.presence",
            "threshold_for": "clim_eval.metrics.presence",
        },
    )
