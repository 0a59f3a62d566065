"""Boxes of the phrases of captions, from their masks: Flickr30k Entities."""

from clim_eval.metrics import phrase_boxes
from torch import Tensor

from flmm.evaluation.masks import EvaluationItem, GroundingEvaluation


class EntityEvaluation(GroundingEvaluation):
    """Also compares the boxes around the masks with the true ones, see
    `clim_eval.metrics.phrase_boxes`."""

    def further(self, item: EvaluationItem, logits: Tensor) -> dict[str, list]:
        """Return "merged", "any" and "pointed" of each phrase."""
        return phrase_boxes(logits, item.record.mask_source.boxes)  # type: ignore[attr-defined]
