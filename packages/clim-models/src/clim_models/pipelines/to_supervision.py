"""Results as `supervision.Detections`. The library is an option and imported when it is used."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from clim_models.pipelines.results import PictureResult

_FIX = 'to_supervision needs a library: pip install "supervision>=0.26"'


def detections_of(result: "PictureResult", *, compact: bool) -> Any:
    """Return the regions of a picture as `supervision.Detections`.

    Raises:
        ImportError: supervision is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise ImportError(_FIX) from error

    regions = result.regions
    boxes = np.array([one.box for one in regions], dtype=np.float32).reshape(-1, 4)
    names = np.array([one.label or "" for one in regions], dtype=str)
    return supervision.Detections(
        xyxy=boxes,
        mask=_masks(supervision, result, boxes, compact=compact),
        confidence=np.array([one.score for one in regions], dtype=np.float32),
        class_id=np.array([one.class_id for one in regions], dtype=int),
        data={"class_name": names},
    )


def _masks(supervision: Any, result: "PictureResult", boxes: np.ndarray, *, compact: bool) -> Any:
    """Return the masks of all regions; None where no region has one."""
    if not any(one.mask is not None for one in result.regions):
        return None
    empty = np.zeros(result.size, dtype=bool)
    masks = np.stack([empty if one.mask is None else one.mask for one in result.regions])
    kind = getattr(supervision, "CompactMask", None)
    if kind is None or not compact:
        return masks

    # It cuts masks at boxes whose last pixel counts.
    inner = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1)
    packed = kind.from_dense(masks, inner, image_shape=result.size)
    if np.array_equal(packed.area, masks.sum(axis=(1, 2))):
        return packed
    # A mask reaches beyond its box.
    height, width = result.size
    whole = np.tile([0, 0, width - 1, height - 1], (len(masks), 1))
    return kind.from_dense(masks, whole, image_shape=result.size)
