"""Annotations of an image, and the targets of the heads.

Letters: G annotated boxes of an image, R sampled boxes of all images, P positive ones, K classes,
H W pixels of the network input, S side of a mask target.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import roi_align

from clim_models.detection.boxes.coding import HEAD_STDS, box_deltas, clip_to
from clim_models.detection.boxes.masks import BoxMasks
from clim_models.detection.boxes.matching import (
    NEGATIVE,
    MatchRules,
    SampleRules,
    draw_priorities,
    match_boxes,
    sample_matches,
)

# Mask pixels that are floats at the same time: bounds the memory.
FLOAT_PIXELS = 2**25


@dataclass(frozen=True)
class Annotations:
    """The annotations of one training image.

    Attributes:
        boxes: (G, 4) XYXY in pixels of the network input; G may be 0.
        labels: (G,) int64.
        masks: (G, H, W) bool or 0/1 at the size of the network input, or only their pixels inside
            the boxes, or None.

    Raises:
        ValueError: shapes that do not fit, or, on a CPU, a box without area or not finite. On a GPU
            the values are not read, because the device would have to wait.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | BoxMasks | None = None

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4:
            raise ValueError(
                f"boxes of shape {tuple(self.boxes.shape)}; pass (n, 4) rows x0, y0, x1, y1 "
                "in pixels (an image without boxes has shape (0, 4))"
            )
        if self.labels.shape != self.boxes.shape[:1]:
            raise ValueError(
                f"{len(self.boxes)} boxes and labels of shape {tuple(self.labels.shape)}; "
                "pass one label per box"
            )
        if self.masks is not None and (
            len(self.masks.shape) != 3 or self.masks.shape[0] != len(self.boxes)
        ):
            raise ValueError(
                f"{len(self.boxes)} boxes and masks of shape {tuple(self.masks.shape)}; "
                "pass one (H, W) mask per box"
            )
        if self.boxes.device.type == "cpu":
            self._check_values()

    def _check_values(self) -> None:
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        wrong = (~(sides > 0).all(1) | ~self.boxes.isfinite().all(1)).nonzero()[:, 0].tolist()
        if wrong:
            raise ValueError(
                f"boxes {wrong[:8]} have no area or are not finite ({self.boxes[wrong[0]].tolist()}"
                " is the first); leave them out, and check that boxes are x0, y0, x1, y1"
            )

    def to(self, device: torch.device) -> "Annotations":
        """Copy everything to a device."""
        masks = self.masks
        if isinstance(masks, BoxMasks):
            masks = masks.to(device)
        elif masks is not None:
            masks = masks.to(device, non_blocking=True)
        boxes = self.boxes.to(device, non_blocking=True)
        return Annotations(boxes, self.labels.to(device, non_blocking=True), masks)


@dataclass(frozen=True)
class SampledBoxes:
    """The boxes of one image that train, positives first.

    Attributes:
        boxes: (R, 4).
        labels: (R,), K for the background.
        owners: (P,), number of the annotation of each positive box.
        targets: (R, 4) deltas to the annotation; zeros for the background.
    """

    boxes: Tensor
    labels: Tensor
    owners: Tensor
    targets: Tensor

    @property
    def positives(self) -> int:
        """P, the number of positive boxes; they stand first."""
        return len(self.owners)

    @property
    def positive_boxes(self) -> Tensor:
        """The positive boxes, (P, 4)."""
        return self.boxes[: self.positives]


@torch.no_grad()
def sample_boxes(
    proposals: Tensor,
    truth: Annotations,
    num_classes: int,
    rules: tuple[MatchRules, SampleRules],
    *,
    priorities: Tensor | None = None,
    stds: Sequence[float] = HEAD_STDS,
    append: bool = True,
) -> SampledBoxes:
    """Choose the boxes of one image that train, and their targets.

    Annotated boxes stand before the proposals and belong to themselves, unless `append` is off.

    Args:
        proposals: (N, 4).
        truth: annotations of the image.
        num_classes: K.
        rules: which boxes are positive, and how many train.
        priorities: (G + N,) or (N,), which boxes train first; None draws them.
        stds: divisors of the deltas.
        append: whether annotated boxes train as well.
    """
    match, sample = rules
    matches, boxes = match_boxes(proposals, truth.boxes, match), proposals
    if append:
        own = torch.arange(len(truth.boxes), device=proposals.device)
        matches = torch.cat([own, matches])
        boxes = torch.cat([truth.boxes.to(proposals), proposals])

    if priorities is None:
        priorities = draw_priorities(matches)
    sampled = sample_matches(matches, priorities, sample)
    positive = (sampled & (matches >= 0)).nonzero()[:, 0]
    negative = (sampled & (matches == NEGATIVE)).nonzero()[:, 0]
    chosen = torch.cat([positive, negative])
    owners = matches[positive]

    labels = torch.full_like(chosen, num_classes)
    labels[: len(owners)] = truth.labels[owners]
    targets = boxes.new_zeros(len(chosen), 4)
    targets[: len(owners)] = box_deltas(boxes[positive], truth.boxes[owners], stds)
    return SampledBoxes(boxes[chosen], labels, owners, targets)


def sample_batch(
    boxes: Sequence[Tensor],
    truths: Sequence[Annotations],
    num_classes: int,
    rules: tuple[MatchRules, SampleRules],
    *,
    priorities: Sequence[Tensor] | None = None,
    stds: Sequence[float] = HEAD_STDS,
    append: bool = True,
) -> list[SampledBoxes]:
    """Choose the boxes of each image that train: see `sample_boxes`.

    Args:
        boxes: (N_i, 4) of each image.
        truths: annotations of each image.
        num_classes, rules, stds, append: as in `sample_boxes`.
        priorities: of each image, or None to draw them.
    """
    return [
        sample_boxes(
            own,
            truth,
            num_classes,
            rules,
            priorities=None if priorities is None else priorities[i],
            stds=stds,
            append=append,
        )
        for i, (own, truth) in enumerate(zip(boxes, truths, strict=True))
    ]


@torch.no_grad()
def mask_targets(masks: Tensor | BoxMasks, boxes: Tensor, owners: Tensor, side: int) -> Tensor:
    """Cut the mask of each positive box and bring it to the size of the prediction.

    Args:
        masks: (G, H, W), bool or 0/1, or their pixels inside the annotated boxes.
        boxes: (P, 4) in pixels of the masks.
        owners: (P,), the mask of each box.
        side: S.

    Returns:
        bool (P, S, S): RoIAlign of the mask, at least 0.5.
    """
    count, height, width = masks.shape
    inside = clip_to(boxes, (height, width)).float()
    whole = masks.dense() if isinstance(masks, BoxMasks) else masks

    # RoIAlign reads floats. Masks go in groups, because an image can have hundreds.
    found = torch.zeros(len(boxes), side, side, dtype=torch.bool, device=boxes.device)
    step = max(FLOAT_PIXELS // (height * width), 1)
    for start in range(0, count, step):
        here = torch.arange(len(boxes), device=boxes.device)
        if count > step:  # else all are here, and nothing waits for the device
            here = ((owners >= start) & (owners < start + step)).nonzero()[:, 0]
        rois = torch.cat([(owners[here, None] - start).to(inside), inside[here]], dim=1)
        some = whole[start : start + step, None].float()
        windows = roi_align(some, rois, side, 1.0, 0, aligned=True)
        found = found.index_copy(0, here, windows[:, 0] >= 0.5)
    return found


def check_annotations(
    truths: Sequence[Annotations], size: tuple[int, int], *, need_masks: bool, num_classes: int
) -> None:
    """Reject annotations that a detector cannot train on.

    Args:
        truths: of each image.
        size: (H, W) of the network input.
        need_masks: whether the detector has a mask head.
        num_classes: K.

    Raises:
        ValueError: missing masks, masks of another size, or, on a CPU, unknown labels.
    """
    for i, truth in enumerate(truths):
        if need_masks and truth.masks is None and len(truth.boxes):
            raise ValueError(
                f"image {i} has boxes without masks and this detector has a mask head: "
                "pass masks, or build the detector with masks=False"
            )
        if need_masks and truth.masks is not None and tuple(truth.masks.shape[-2:]) != size:
            raise ValueError(
                f"masks of image {i} are {tuple(truth.masks.shape[-2:])} for images of {size}; "
                "pad them as the image was padded"
            )
        if truth.labels.device.type == "cpu" and len(truth.labels):
            low, high = int(truth.labels.min()), int(truth.labels.max())
            if low < 0 or high >= num_classes:
                raise ValueError(
                    f"labels of image {i} go from {low} to {high} for {num_classes} classes; "
                    "match categories with the vocabulary by name, not by their order"
                )
