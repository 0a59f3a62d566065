"""Boxes: formats, boxes around masks, clipping. XYXY is (left, top, right, bottom).

The right and bottom edges are exclusive: the box of a single pixel is one pixel wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

# torch is imported where it is used: packing reads annotations, and has no other use for it.
if TYPE_CHECKING:
    from torch import Tensor

Box = tuple[int, int, int, int]


def box_of_mask(mask: np.ndarray) -> Box | None:
    """Return the smallest box around the set pixels of a mask (H, W): XYXY in pixels.

    Returns None for an empty mask, whose box the caller has to decide.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    columns = np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def boxes_of_masks(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest boxes around bool masks (N, H, W), and which masks are empty.

    Nothing waits for the device.

    Returns:
        int64 (N, 4) XYXY in pixels, with undefined values where a mask is empty; bool (N,).
    """
    import torch

    rows, columns = masks.any(dim=2), masks.any(dim=1)
    top, bottom = _extent(rows)
    left, right = _extent(columns)
    return torch.stack([left, top, right, bottom], dim=1), ~rows.any(dim=1)


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first set place of each row (N, S), and the place after the last one."""
    # argmax gives the first of equal values.
    flags = occupied.byte()
    return flags.argmax(dim=1), occupied.shape[1] - flags.flip(1).argmax(dim=1)


def xywh_to_xyxy(box: Sequence[float]) -> tuple[float, float, float, float]:
    """Turn a COCO box (left, top, width, height) into XYXY."""
    x, y, width, height = box
    return x, y, x + width, y + height


def xyxy_to_xywh(box: Sequence[float]) -> tuple[float, float, float, float]:
    """Turn an XYXY box into a COCO box (left, top, width, height)."""
    left, top, right, bottom = box
    return left, top, right - left, bottom - top


def inside_image(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Clip boxes (N, 4) XYXY in pixels to an image of (height, width)."""
    import torch

    return torch.from_numpy(inside_window(boxes.numpy(), size))


def inside_window(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Clip boxes (N, 4) XYXY as `inside_image` does, in numpy."""
    height, width = size
    return np.clip(boxes, 0, np.array([width, height, width, height], dtype=boxes.dtype))


def padded_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Turn boxes (N, 4) XYXY in pixels into fractions of the square around the image.

    Boxes are clipped to the image of (height, width), which lies in the square's top left corner.

    Returns:
        float32 (N, 4) XYXY in [0, 1].
    """
    return (inside_image(boxes, size) / max(size)).float()
