"""Masks: COCO's encodings, panoptic segment ids, and masks on a feature grid."""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clim_data.faults import BrokenSample
from clim_data.pixels.decode import load_rgb
from clim_data.pixels.transforms import letterbox


def read_segment_ids(png: Path | bytes, name: str = "") -> np.ndarray:
    """Segment ids (H, W) int64 of a COCO panoptic png, a path or its bytes: R + 256 G + 65536 B."""
    colours = np.asarray(load_rgb(png, name=name)).astype(np.int64)
    return colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2]


def encode_mask(mask: np.ndarray) -> dict:
    """bool (H, W) -> COCO RLE as JSON holds it: {"size": [H, W], "counts": text}."""
    from pycocotools import mask as coco_mask

    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(edge) for edge in code["size"]], "counts": code["counts"].decode()}


def decode_segmentation(segmentation: list | dict, height: int, width: int) -> np.ndarray:
    """COCO polygons or RLE -> bool (height, width), by pycocotools.

    Raises:
        BrokenSample: the segmentation is malformed or of another size.
    """
    from pycocotools import mask as coco_mask

    try:
        if isinstance(segmentation, list):
            rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation["counts"], list):
            rle = coco_mask.frPyObjects(segmentation, height, width)
        else:
            rle = segmentation
        with warnings.catch_warnings():  # pycocotools 2.0.11 with numpy 2; its result is right
            warnings.filterwarnings(
                "ignore", message="__array__ implementation", category=DeprecationWarning
            )
            mask = coco_mask.decode(rle).astype(bool)
    except Exception as fault:  # pycocotools raises bare Exception and TypeError
        raise BrokenSample("bad segmentation", "annotation", str(fault)) from None
    if mask.shape != (height, width):
        raise BrokenSample(
            "size mismatch", "segmentation", f"{mask.shape} is not the image's {(height, width)}"
        )
    return mask


def masks_to_grid(masks: Tensor, grid: int, *, antialias: bool = True) -> Tensor:
    """Binary masks (N, H, W) -> uint8 (N, grid, grid) on the patch grid of the letterboxed image.

    A cell is set when the bicubic value is above zero, so a mask never shrinks to nothing by
    rounding. `antialias=False` is what torchvision did with tensors before 0.17, the setting of
    published numbers.
    """
    if masks.shape[0] == 0:
        return torch.zeros(0, grid, grid, dtype=torch.uint8)
    return (letterbox(masks.float(), grid, antialias=antialias) > 0).to(torch.uint8)
