"""The largest step of a detector, for estimates of memory and time.

The cost of a step depends on its proposals, and so on weights and pictures. Here every image has as
many boxes as can train, at fixed places, so that the step can be traced without values.

Letters: B images, R boxes of all images, P positive ones, G annotated boxes of an image.
"""

import torch
from torch import Tensor

from clim_models.detection.boxes.roi import align_map
from clim_models.detection.detector import TwoStageDetector
from clim_models.detection.heads import box_head as boxes_of, mask_head as masks_of
from clim_models.detection.heads.losses import box_loss, classification_loss, mask_loss

# Annotated boxes of each image; COCO has 7 on average, LVIS 13.
ANNOTATED = 10


def largest_losses(detector: TwoStageDetector, images: Tensor) -> dict[str, Tensor]:
    """Compute the losses of a step whose boxes are as many as the rules allow.

    Shapes, and so memory and arithmetic of the layers, are those of a training step with full
    samples. Values have no meaning. Choosing proposals and bitmaps of annotated masks are not
    included.

    Args:
        detector: in training mode.
        images: (B, 3, H, W), normalised.

    Returns:
        The losses, as `TwoStageDetector.losses` names them.
    """
    levels = detector.neck(detector.backbone(images, with_clip=False).pyramid)
    scores = detector.rpn(levels)
    annotated = images.new_zeros(ANNOTATED, 4, dtype=torch.float32)
    losses = detector.rpn.losses(scores, [annotated] * len(images))

    # All boxes are read from the finest level; a real step shares them out.
    rules, stride = detector.rules.sample, detector.backbone.strides[0]
    rois = images.new_zeros(len(images) * rules.number, 5, dtype=torch.float32)
    windows = align_map(levels[0], rois, boxes_of.WINDOW, stride).to(levels[0].dtype)
    outputs = detector.box_head(windows)
    logits = detector.box_head.classifier(outputs.features, detector.classes.embeddings)

    labels = torch.zeros(len(rois), dtype=torch.int64, device=images.device)
    weights = detector.classes.weights(detector.rules.background_weight)
    losses["loss_cls"], _ = classification_loss(logits, labels, weights)
    losses["loss_bbox"] = box_loss(outputs.deltas, torch.zeros_like(outputs.deltas), labels == 0)

    if detector.mask_head is not None:
        positive = rois[: len(images) * rules.positives]
        windows = align_map(levels[0], positive, masks_of.WINDOW, stride).to(levels[0].dtype)
        masks = detector.mask_head(windows)
        losses["loss_mask"] = mask_loss(masks, torch.zeros_like(masks, dtype=torch.bool))
    return losses
