"""Overlaps of masks, counted in pixels."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Largest number of resized logits at a time; larger batches are done in pieces. The values then
# stay in a CPU's caches and in memory that the process already has, which is several times as fast.
_VALUES = 1 << 26

_CPU_VALUES = 1 << 21


@dataclass(frozen=True)
class MaskOverlaps:
    """Pixel counts of N pairs of masks: int64 (N,) intersections and unions, and the pixels of one
    mask."""

    intersections: Tensor
    unions: Tensor
    pixels: int


@torch.no_grad()
def mask_overlaps(logits: Tensor, masks: Tensor) -> MaskOverlaps:
    """Compare N mask logits with N true masks, in one go and on their device.

    The prediction is sigmoid, then bilinear (align_corners False) to the true masks' size if it
    differs, then > 0.5: probabilities are resized, not logits, as the published evaluations do.

    Args:
        logits: float (N, h, w).
        masks: bool, or numbers that are 0 or 1, (N, H, W), on the same device.

    Raises:
        ValueError: another number of masks than logits, or other dimensions.
    """
    if logits.ndim != 3 or masks.ndim != 3 or len(logits) != len(masks):
        raise ValueError(
            f"logits {tuple(logits.shape)} and masks {tuple(masks.shape)}: pass (N, h, w) and (N, "
            "H, W)"
        )
    height, width = masks.shape[-2:]
    at_once = _CPU_VALUES if masks.device.type == "cpu" else _VALUES
    step = max(1, at_once // max(1, height * width))
    counts = torch.zeros(2, len(masks), dtype=torch.int64, device=masks.device)
    for start in range(0, len(masks), step):
        piece = slice(start, start + step)
        predicted, true = _predict(logits[piece], (height, width)), masks[piece].bool()
        counts[0, piece] = _pixels(predicted & true)
        counts[1, piece] = _pixels(predicted | true)
    return MaskOverlaps(counts[0], counts[1], height * width)


def _pixels(masks: Tensor) -> Tensor:
    # Counting in 32 bits is three times as fast on a CPU as torch's default, and a mask has fewer
    # pixels than that.
    return masks.flatten(1).sum(1, dtype=torch.int32)


def _predict(logits: Tensor, size: tuple[int, int]) -> Tensor:
    shares = logits.float().sigmoid()
    if tuple(shares.shape[-2:]) != size:
        shares = F.interpolate(shares[None], size, mode="bilinear", align_corners=False)[0]
    return shares > 0.5


def ious(
    intersections: np.ndarray, unions: np.ndarray, *, empty: float = float("nan")
) -> np.ndarray:
    """float64 intersection / union; `empty` where the union is empty."""
    known = unions > 0
    return np.where(known, intersections / np.where(known, unions, 1), empty)


def mean_of_known(values: np.ndarray) -> float:
    """Average the values that are not nan; nan if there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def with_prefix(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Put "PREFIX." before the name of each metric."""
    return {f"{prefix}.{name}": value for name, value in metrics.items()}
