"""The choice of the boxes that a detector returns, and their masks."""

from collections.abc import Sequence

from torch import Tensor
from torchvision.ops import batched_nms

from clim_models.detection.heads.mask_head import paste_masks
from clim_models.detection.images import ImageFrame
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


def with_masks(
    found: Sequence[Detections], logits: Tensor, frames: Sequence[ImageFrame]
) -> list[Detections]:
    """Add the masks of boxes, at the size of each picture.

    Args:
        found: boxes of each picture.
        logits: (R, S, S), those of all pictures one after the other.
        frames: sizes of each picture.
    """
    probabilities = logits.sigmoid().split([len(one.boxes) for one in found])
    pasted = []
    for one, mask, frame in zip(found, probabilities, frames, strict=True):
        masks = paste_masks(mask, one.boxes, frame.original)
        pasted.append(Detections(one.boxes, one.scores, one.labels, masks))
    return pasted
