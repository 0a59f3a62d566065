"""Boxes: formats, boxes of masks, and boxes of several images as one tensor."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def inside_image(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (n, 4) XYXY in pixels, clipped to an image of (height, width)."""
    height, width = size
    return torch.minimum(
        boxes.clamp(min=0), torch.tensor([width, height, width, height], dtype=boxes.dtype)
    )


def padded_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes in pixels of an image of (height, width), clipped to it -> float32 XYXY in [0, 1] of
    the padded square."""
    return (inside_image(boxes, size) / max(size)).float()


def xywh_to_xyxy(box: Sequence[float]) -> tuple[float, float, float, float]:
    """COCO box (left, top, width, height) -> XYXY, pixels."""
    x, y, width, height = box
    return x, y, x + width, y + height


def mask_box(mask: np.ndarray, *, inclusive: bool = False) -> tuple[float, float, float, float]:
    """Box around the set pixels, XYXY in pixels; `inclusive` ends at the last pixel's index, one
    pixel short."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    end = 0 if inclusive else 1
    return float(columns[0]), float(rows[0]), float(columns[-1] + end), float(rows[-1] + end)


def mask_box_normalised(mask: np.ndarray) -> np.ndarray:
    """XYXY box in [0, 1] around the true cells of an (h, w) mask."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    corners = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64)
    return corners / np.array([mask.shape[1], mask.shape[0]] * 2)


def mask_box_xywh(mask: np.ndarray) -> list[int]:
    """XYWH in pixels; zeros for an empty mask."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return [0, 0, 0, 0]
    return [
        int(v) for v in (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
    ]
