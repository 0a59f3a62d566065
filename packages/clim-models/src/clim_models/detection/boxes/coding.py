"""Boxes and the deltas between them. Boxes are XYXY in pixels of the network input."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# A predicted side is at most 62.5 times larger or smaller than the side of its reference box.
LARGEST_LOG_RATIO = math.log(1000 / 16)
PLAIN_STDS = (1.0, 1.0, 1.0, 1.0)
HEAD_STDS = (0.1, 0.1, 0.2, 0.2)


def as_row(values: Sequence[float], device: torch.device) -> Tensor:
    """Copy numbers to a device that nobody waits for: float32 (n,)."""
    return torch.tensor(values, dtype=torch.float32).to(device, non_blocking=True)


def box_deltas(references: Tensor, boxes: Tensor, stds: Sequence[float] = PLAIN_STDS) -> Tensor:
    """Compute the deltas that move reference boxes onto boxes.

    dx = (x - px) / pw and dw = log(w / pw) with centres x, px and widths w, pw; the same for y.

    Args:
        references, boxes: (..., 4) with positive sides.
        stds: what each delta is divided by.

    Returns:
        (..., 4) as dx, dy, dw, dh.

    Source: R-CNN (arXiv 1311.2524), appendix C.
    """
    centre, size = _centre_and_size(references.float())
    new_centre, new_size = _centre_and_size(boxes.float())
    deltas = torch.cat([(new_centre - centre) / size, (new_size / size).log()], -1)
    return deltas / as_row(stds, deltas.device)


def apply_deltas(references: Tensor, deltas: Tensor, stds: Sequence[float] = PLAIN_STDS) -> Tensor:
    """Move reference boxes by deltas: the inverse of `box_deltas`.

    dw and dh are limited on both sides to log(1000 / 16).

    Args:
        references: (..., 4).
        deltas: (..., 4).
        stds: what each delta was divided by.

    Returns:
        (..., 4), not clipped to an image.
    """
    centre, size = _centre_and_size(references.float())
    deltas = deltas.float() * as_row(stds, deltas.device)

    new_centre = centre + size * deltas[..., :2]
    ratio = deltas[..., 2:].clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    half = size * ratio.exp() * 0.5
    return torch.cat([new_centre - half, new_centre + half], -1)


def clip_to(boxes: Tensor, size: Tensor | tuple[float, float]) -> Tensor:
    """Clip boxes to [0, width] and [0, height].

    Args:
        boxes: (..., 4).
        size: (height, width), or a tensor (..., 2) of them that broadcasts to the boxes.
    """
    limits = size if isinstance(size, Tensor) else as_row(size, boxes.device)
    limits = limits.to(boxes)
    height, width = limits.unbind(-1)
    high = torch.stack([width, height, width, height], -1)
    return torch.minimum(boxes.clamp(min=0), high)


def move_boxes(
    boxes: Sequence[Tensor], deltas: Tensor, limits: Tensor, stds: Sequence[float] = HEAD_STDS
) -> list[Tensor]:
    """Move the boxes of all images by deltas and clip them.

    Args:
        boxes: (n_i, 4) of each image.
        deltas: (R, 4), those of all images one after the other.
        limits: (B, 2), height and width of each image.
        stds: what each delta was divided by.

    Returns:
        (n_i, 4) of each image.
    """
    parts = deltas.split([len(box) for box in boxes])
    return [
        clip_to(apply_deltas(box, delta, stds), limit)
        for box, delta, limit in zip(boxes, parts, limits, strict=True)
    ]


def has_area(boxes: Tensor) -> Tensor:
    """Find the boxes whose sides are both positive: (..., 4) -> bool (...)."""
    return (boxes[..., 2:] > boxes[..., :2]).all(-1)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) * 0.5, high - low
