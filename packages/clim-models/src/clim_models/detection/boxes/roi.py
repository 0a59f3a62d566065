"""Features of boxes in pixels: RoIAlign of one map, or of the level that suits each box.

Letters: B images, C channels, R boxes of all images, S side of the window.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

# A box of this side (geometric mean, pixels) is the smallest that is read from the second level,
# halved: 2 * 56 = 112.
FINEST_SIDE = 56.0


def as_rois(boxes: Sequence[Tensor]) -> Tensor:
    """Put the number of the image before each box: B tensors (n_i, 4) -> (R, 5)."""
    rows = []
    for image, box in enumerate(boxes):
        rows.append(torch.cat([box.new_full((len(box), 1), image), box[:, :4]], dim=1))
    return torch.cat(rows)


def align_map(feature_map: Tensor, rois: Tensor, size: int, stride: float) -> Tensor:
    """Sample boxes of one map by RoIAlign (aligned, adaptive number of samples).

    Args:
        feature_map: (B, C, h, w).
        rois: (R, 5), number of the image and XYXY in pixels.
        size: S.
        stride: pixels per position.

    Returns:
        (R, C, S, S) float32, zeros for a box without area.

    Source: RoIAlign, arXiv 1703.06870.
    """
    return roi_align(feature_map.float(), rois.float(), size, 1 / stride, 0, aligned=True)


def level_of_boxes(boxes: Tensor, levels: int, finest: float = FINEST_SIDE) -> Tensor:
    """Choose the level of each box by its area: floor(log2(sqrt(w h) / finest + 1e-6)), clamped.

    The rule counts pixels and does not depend on the strides.

    Args:
        boxes: (R, 4) XYXY in pixels.
        levels: number of levels.
        finest: half the side of the smallest box that is read from the second level.

    Returns:
        (R,) int64 from 0 to levels - 1.

    Source: FPN, arXiv 1612.03144, equation 1.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    side = sides.prod(-1).sqrt()
    return (side / finest + 1e-6).log2().floor().clamp(0, levels - 1).long()


def align_pyramid(
    maps: Sequence[Tensor],
    rois: Tensor,
    size: int,
    strides: Sequence[float],
    *,
    finest: float = FINEST_SIDE,
) -> Tensor:
    """Sample each box from the level that suits its size.

    Args:
        maps: (B, C, h, w) of each level, finest first.
        rois: (R, 5), number of the image and XYXY in pixels.
        size: S.
        strides: pixels per position of each level.
        finest: see `level_of_boxes`.

    Returns:
        (R, C, S, S) float32.
    """
    levels = level_of_boxes(rois[:, 1:], len(maps), finest)
    found = maps[0].new_zeros(len(rois), maps[0].shape[1], size, size, dtype=torch.float32)
    for level, (feature_map, stride) in enumerate(zip(maps, strides, strict=True)):
        here = (levels == level).nonzero()[:, 0]
        features = align_map(feature_map, rois[here], size, stride)
        found = found.index_copy(0, here, features)
    return found
