"""Which boxes a detector returns."""

from torch import Tensor
from torchvision.ops import batched_nms

from clim_models.detection.rules import DetectionRules, Detections


def choose_boxes(boxes: Tensor, scores: Tensor, rules: DetectionRules) -> Detections:
    """Choose the boxes of one picture, class by class.

    Args:
        boxes: (n, 4) XYXY in pixels of the picture; all classes share them.
        scores: (n, K) without background.
        rules: least score, overlap and number.

    Returns:
        The boxes by falling score.
    """
    rows, labels = (scores > rules.score).nonzero(as_tuple=True)
    candidates, values = boxes[rows], scores[rows, labels]
    best = batched_nms(candidates, values, labels, rules.overlap)[: rules.per_image]
    return Detections(candidates[best], values[best], labels[best])
