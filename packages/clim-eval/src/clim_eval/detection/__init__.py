"""Detectors over annotated images: boxes, average precision, and scores combined with a CLIP.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_eval.detection.annotations import DetectionTruth as DetectionTruth
    from clim_eval.detection.options import (
        DetectionOptions as DetectionOptions,
        ProtocolOptions as ProtocolOptions,
        RescoreOptions as RescoreOptions,
    )
    from clim_eval.detection.rescore import rescore_detections as rescore_detections
    from clim_eval.detection.run import evaluate_detections as evaluate_detections
    from clim_eval.detection.scores import score_results as score_results
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "DetectionOptions": "clim_eval.detection.options",
            "DetectionTruth": "clim_eval.detection.annotations",
            "ProtocolOptions": "clim_eval.detection.options",
            "RescoreOptions": "clim_eval.detection.options",
            "evaluate_detections": "clim_eval.detection.run",
            "rescore_detections": "clim_eval.detection.rescore",
            "score_results": "clim_eval.detection.scores",
        },
    )
