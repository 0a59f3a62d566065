"""Results as `supervision.Detections`. The library is an option and imported when it is used."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from clim_models.pipelines.region import RegionResult

_FIX = 'to_supervision needs a library: pip install "supervision>=0.26"'


def detections_of(regions: Sequence[RegionResult], size: tuple[int, int], *, compact: bool) -> Any:
    """Return the regions of a picture as `supervision.Detections`.

    Args:
        regions: in pixels of the picture.
        size: its (height, width).
        compact: masks become run lengths where this supervision has them.

    Raises:
        ImportError: supervision is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise ImportError(_FIX) from error

    boxes = np.array([one.box for one in regions], dtype=np.float32).reshape(-1, 4)
    masks = _masks(regions, size)
    names = np.array([one.label or "" for one in regions], dtype=str)
    return supervision.Detections(
        xyxy=boxes,
        mask=_pack_masks(supervision, masks, boxes) if compact else masks,
        confidence=np.array([one.score for one in regions], dtype=np.float32),
        class_id=np.array([one.class_id for one in regions], dtype=int),
        data={"class_name": names},
    )


def _masks(regions: Sequence[RegionResult], size: tuple[int, int]) -> np.ndarray | None:
    """Return the masks of all regions, bool (N, height, width); None where no region has one."""
    if not any(one.mask is not None for one in regions):
        return None
    empty = np.zeros(size, dtype=bool)
    return np.stack([empty if one.mask is None else one.mask for one in regions])


def _pack_masks(supervision: Any, masks: np.ndarray | None, boxes: np.ndarray) -> Any:
    """Return masks as run lengths, or as they are where this supervision has none."""
    kind = getattr(supervision, "CompactMask", None)
    if kind is None or masks is None:
        return masks
    height, width = masks.shape[1:]

    # It cuts masks at boxes whose last pixel counts.
    outer = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1)
    packed = kind.from_dense(masks, outer, image_shape=(height, width))
    if np.array_equal(packed.area, masks.sum(axis=(1, 2))):
        return packed
    # A mask reaches beyond its box.
    whole = np.tile([0, 0, width - 1, height - 1], (len(masks), 1))
    return kind.from_dense(masks, whole, image_shape=(height, width))
