"""Masks: run lengths of one, panoptic segment ids, and masks on a feature grid."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clim_data.faults import BrokenSample
from clim_data.pixels.decode import load_rgb, open_image
from clim_data.pixels.segmentations import decode_segmentation
from clim_data.pixels.transforms import letterbox

BAD_PNG = "bad panoptic png"


def read_segment_ids(png: Path | bytes, name: str = "") -> np.ndarray:
    """Read the segment ids of a COCO panoptic png: R + 256 G + 65536 B.

    Args:
        png: path or bytes of the file.
        name: what to call it in an error.

    Returns:
        int64 (H, W).

    Raises:
        BrokenSample: the file cannot be read, is no png (others change colours), or its pixels are
            not exact colours: grey, 16 bit or half transparent.
    """
    image = open_image(png, name)
    name = name or str(png if isinstance(png, Path) else "png")
    if image.format != "PNG":
        raise BrokenSample(BAD_PNG, name, f"a {image.format} file: segment ids need a PNG in RGB")
    if image.mode not in ("RGB", "RGBA", "P"):
        raise BrokenSample(BAD_PNG, name, f"mode {image.mode}: give RGB")

    if image.mode == "RGBA" or "transparency" in image.info:
        image = _without_transparency(image, name)
    colours = np.asarray(load_rgb(image, name=name)).astype(np.int64)
    return colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2]


def _without_transparency(image: Image.Image, name: str) -> Image.Image:
    """Return an image in RGB, black where it was transparent; refuse half transparent pixels."""
    try:
        pixels = np.asarray(image.convert("RGBA"))
    except Exception as fault:  # a damaged file can make Pillow raise nearly anything
        raise BrokenSample("unreadable image", name, repr(fault)) from None
    alpha = pixels[..., 3:]
    if not np.isin(alpha, (0, 255)).all():
        raise BrokenSample(BAD_PNG, name, f"mode {image.mode}, half transparent: give RGB")
    return Image.fromarray(np.where(alpha == 255, pixels[..., :3], 0).astype(np.uint8))


def encode_mask(mask: np.ndarray) -> dict:
    """Encode a mask, bool (H, W), as COCO RLE in JSON: {"size": [H, W], "counts": text}."""
    from pycocotools import mask as coco_mask

    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(edge) for edge in code["size"]], "counts": code["counts"].decode()}


def join_segmentations(
    parts: Sequence[list | dict], size: tuple[int, int], name: str
) -> list | dict:
    """Join checked COCO segmentations of one image of `size` = (H, W), which mean its union.

    Returns:
        All polygons, where there are no run lengths, else run lengths; [] of no part.

    Raises:
        BrokenSample: run lengths are malformed or of another size.
    """
    if len(parts) == 1:
        return parts[0]
    polygons: list = []
    for part in parts:
        if isinstance(part, dict):
            masks = [decode_segmentation(one, *size, name) for one in parts]
            return encode_mask(np.logical_or.reduce(masks))
        polygons += part
    return polygons


def masks_to_grid(masks: Tensor, grid: int, *, antialias: bool = True) -> Tensor:
    """Bring masks (N, H, W) to the patch grid of the letterboxed image: uint8 (N, grid, grid).

    A cell is set when the bicubic value is above zero, so a mask never shrinks to nothing by
    rounding. `antialias=False` is what torchvision did with tensors before 0.17, the setting of
    published numbers.
    """
    if masks.shape[0] == 0:
        return torch.zeros(0, grid, grid, dtype=torch.uint8)
    return (letterbox(masks.float(), grid, antialias=antialias) > 0).to(torch.uint8)
