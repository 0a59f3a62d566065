"""Losses and training figures of predicted masks, as in F-LMM (arXiv 2406.05821).

Letters: N masks of one image, H W their pixels. Everything is in float32, for all masks of an image
at once.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Averages divide by count + this, so that an image without masks gives 0 and not NaN.
COUNT_EPS = torch.finfo(torch.float32).eps


def dice_per_mask(logits: Tensor, targets: Tensor, *, eps: float = 1.0) -> Tensor:
    """Compute the dice loss of each mask: 1 - (2 sum pg + eps) / (sum p + sum g + eps).

    p is the sigmoid of the logits, g the target. The denominator has no squares ("naive" dice of
    mmdetection); V-Net's has.

    Args:
        logits: (N, H, W).
        targets: (N, H, W), bool or in [0, 1].

    Returns:
        (N,) float32.

    Raises:
        ValueError: other shapes.
    """
    logits, targets = _pixels(logits, targets)
    p = logits.sigmoid()
    return 1 - (2 * (p * targets).sum(1) + eps) / (p.sum(1) + targets.sum(1) + eps)


def dice_loss(logits: Tensor, targets: Tensor, *, eps: float = 1.0) -> Tensor:
    """Sum `dice_per_mask` and divide by N + 1.2e-7: a float32 scalar, 0 without masks."""
    per_mask = dice_per_mask(logits, targets, eps=eps)
    return per_mask.sum() / (per_mask.numel() + COUNT_EPS)


def mask_bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Average the binary cross-entropy with logits over all pixels of all masks.

    The divisor is their number + 1.2e-7. Returns a float32 scalar.
    """
    logits, targets = _pixels(logits, targets)
    total = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    return total / (logits.numel() + COUNT_EPS)


def mask_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the IoU of (logits > 0) and (targets > 0) of each mask.

    (N, H, W), (N, H, W) -> (N,) float32, 0 for empty unions.
    """
    logits, targets = _pixels(logits, targets)
    predicted = logits > 0
    wanted = targets > 0
    intersection = (predicted & wanted).sum(1).float()
    return intersection / ((predicted | wanted).sum(1) + 1e-12)


def mask_losses(logits: Sequence[Tensor], targets: Sequence[Tensor]) -> dict[str, Tensor]:
    """Compute losses and figures of several images, each weighted by its number of masks.

    Args:
        logits: per image (n_i, H_i, W_i).
        targets: per image (n_i, H', W') of any size; `resize_targets` makes them fit the logits.

    Returns:
        Float32 scalars: "loss_dice", "loss_mask" (with gradients), "accuracy" (fraction of pixels
        on the right side of 0) and "aiou" (mean `mask_iou`). Without any mask every entry is 0, and
        the losses still have a gradient.

    Raises:
        ValueError: lists of different lengths or different numbers of masks.
    """
    if len(logits) != len(targets) or len(logits) == 0:
        raise ValueError(
            f"{len(logits)} images have logits, {len(targets)} have targets; pass one of each per "
            "image"
        )

    sums: dict[str, Tensor] = {}
    for predicted, wanted in zip(logits, targets, strict=True):
        count = predicted.shape[0]
        size = (predicted.shape[-2], predicted.shape[-1])
        wanted = resize_targets(wanted, size)
        measured = {
            "loss_dice": dice_loss(predicted, wanted),
            "loss_mask": mask_bce_loss(predicted, wanted),
            "accuracy": ((predicted > 0) == (wanted > 0)).float().sum() / max(predicted.numel(), 1),
            "aiou": mask_iou(predicted, wanted).sum() / max(count, 1),
        }
        for name, value in measured.items():
            sums[name] = sums.get(name, 0) + count * value

    total = max(sum(predicted.shape[0] for predicted in logits), 1)
    return {name: value / total for name, value in sums.items()}


def resize_targets(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize masks (N, H, W) of any dtype to float32 (N, *size), by nearest neighbour.

    The rule is torch's: floor of the index.
    """
    if tuple(masks.shape[-2:]) == tuple(size):
        return masks.float()
    return F.interpolate(masks[:, None].float(), size=tuple(size), mode="nearest")[:, 0]


def _pixels(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Check two (N, H, W) and flatten them to (N, HW) float32."""
    if logits.ndim != 3 or logits.shape != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must both be "
            "(N, H, W): resize the targets with resize_targets(targets, logits.shape[-2:])"
        )
    return logits.flatten(1).float(), targets.flatten(1).float()
