"""The largest step of a detector of Detic, for estimates of memory and time.

As in `tracing`: every image has as many boxes as can train, at places that are fixed, so that the
step can be traced without values.

Letters: B images, R boxes or regions of all images, T pictures of all images, C embedding.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from clim_models.detection.boxes.roi import align_map
from clim_models.detection.c4 import STRIDE, WINDOW, C4BoxHead, C4Detector
from clim_models.detection.cascade import STDS, CascadeDetector
from clim_models.detection.heads import cascade_head, mask_head
from clim_models.detection.heads.cascade_head import CascadeHead
from clim_models.detection.heads.losses import box_loss, mask_loss
from clim_models.detection.heads.sigmoid import sigmoid_loss
from clim_models.detection.image_level.captions import Captions
from clim_models.detection.image_level.step import ImageLevelLosses
from clim_models.detection.tracing import ANNOTATED

Head = C4BoxHead | CascadeHead
Read = Callable[[int], Tensor]
"""Features of some boxes, from their number."""


def largest_detic_losses(
    detector: C4Detector | CascadeDetector, images: Tensor
) -> dict[str, Tensor]:
    """Compute the losses of a step on images whose boxes are as many as the rules allow.

    Shapes, and so memory and arithmetic of the layers, are those of a training step with full
    samples. Values have no meaning. Choosing proposals and bitmaps of annotated masks are not
    included.

    Args:
        detector: in training mode.
        images: (B, 3, H, W), normalised.
    """
    annotated = [images.new_zeros(ANNOTATED, 4, dtype=torch.float32)] * len(images)
    rules = detector.options.box_sample
    maps = _maps(detector, images)
    if isinstance(detector, C4Detector):
        found = detector.rpn.losses(detector.rpn(maps), annotated)
        losses = {name: loss.sum() for name, loss in found.items()}
    else:
        losses = detector.centres.losses(detector.centres(maps), annotated)
        positive = _boxes(images, len(images) * rules.positives)
        stride = int(detector.options.centres.heatmap.strides[0])
        windows = align_map(maps[0], positive, mask_head.WINDOW, stride).to(maps[0].dtype)
        masks = detector.mask_head(windows)
        losses["loss_mask"] = mask_loss(masks, torch.zeros_like(masks, dtype=torch.bool))

    for stage, (head, read) in enumerate(_stages(detector, maps)):
        features = read(len(images) * rules.number)
        logits = head.classifier(features, detector.classes.embeddings)
        deltas = head.deltas(features)
        labels = torch.zeros(len(features), dtype=torch.int64, device=images.device)
        losses[f"{stage}.loss_cls"] = sigmoid_loss(logits, labels, torch.ones_like(logits[0]))
        losses[f"{stage}.loss_bbox"] = box_loss(deltas, torch.zeros_like(deltas), labels == 0)
    return losses


def largest_image_losses(
    detector: C4Detector | CascadeDetector, images: Tensor, pictures: Sequence[int]
) -> dict[str, Tensor]:
    """Compute the losses of a step on images with captions and tags, as `largest_detic_losses`.

    Args:
        detector: in training mode, with image-level losses.
        images: (B, 3, H, W), normalised.
        pictures: number of pictures of each image.
    """
    level = detector.image_level
    assert isinstance(level, ImageLevelLosses)
    groups = [level.rules.groups if count > 1 else 0 for count in pictures]
    maps = _maps(detector, images)
    _propose(detector, maps)

    losses: dict[str, Tensor] = {}
    for stage, (head, read) in enumerate(_stages(detector, maps)):
        for kind in (level.tags, level.captions):
            if kind is not None:
                embedded = head.classifier.project(read(sum(pictures) + sum(groups)))
                name = f"{stage}.{type(kind).__name__}"
                losses[name] = _image_loss(level, kind, embedded, sum(pictures), detector)
    return losses


def _image_loss(
    level: ImageLevelLosses,
    kind: nn.Module,
    embedded: Tensor,
    pictures: int,
    detector: C4Detector | CascadeDetector,
) -> Tensor:
    """Compute the loss of tags or captions of regions (R, C) that have none."""
    found: Tensor
    if kind is level.tags:
        classes = detector.classes.embeddings
        nothing = embedded.new_zeros(len(embedded), len(classes), dtype=torch.bool)
        found = kind(embedded, classes, nothing)
        return found

    members = embedded.new_zeros(len(embedded), pictures, dtype=torch.bool)
    numbers = torch.zeros(pictures, dtype=torch.int64, device=embedded.device)
    captions = Captions(embedded.new_zeros(pictures, embedded.shape[1]), numbers)
    found = kind(embedded, members, numbers, captions, remember=False)
    return found


def _maps(detector: C4Detector | CascadeDetector, images: Tensor) -> list[Tensor]:
    """Return the maps of the proposal network, finest first."""
    if isinstance(detector, C4Detector):
        return [detector.backbone(images)[-1]]
    return detector.levels_of(images)


@torch.no_grad()
def _propose(detector: C4Detector | CascadeDetector, maps: list[Tensor]) -> None:
    """Run the proposal network, which captions and tags do not train."""
    if isinstance(detector, C4Detector):
        detector.rpn(maps)
    else:
        detector.centres(maps)


def _stages(detector: C4Detector | CascadeDetector, maps: list[Tensor]) -> list[tuple[Head, Read]]:
    """Return the box heads, and for each the function that reads features of boxes.

    All boxes are read from the finest map; a real step shares them out.
    """
    if isinstance(detector, C4Detector):
        return [(detector.box_head, _reader(detector.box_head, maps[0], WINDOW, STRIDE))]
    stride = int(detector.options.centres.heatmap.strides[0])
    heads = [detector.head(stage) for stage in range(len(STDS))]
    return [(head, _reader(head, maps[0], cascade_head.WINDOW, stride)) for head in heads]


def _reader(head: Head, feature_map: Tensor, size: int, stride: int) -> Read:
    def read(count: int) -> Tensor:
        windows = align_map(feature_map, _boxes(feature_map, count), size, stride)
        found: Tensor = head(windows.to(feature_map.dtype))
        return found

    return read


def _boxes(like: Tensor, count: int) -> Tensor:
    """Return (R, 5) boxes of the first image."""
    return like.new_zeros(count, 5, dtype=torch.float32)
