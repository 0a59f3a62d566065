"""Pictures with an EXIF rotation: the LMM sees them upright, masks are in the frame of the given
picture."""

from collections.abc import Sequence
from typing import Any

import torch
from clim_data.pixels import orientation
from PIL import Image
from torch import Tensor

from flmm.text.boxes import Place


def orientation_of(image: Any) -> int:
    """Return the EXIF orientation, 1 to 8, of a picture in memory; 1 for files and all else.

    A file is read upright, and its masks lie on the upright picture.
    """
    return orientation(image) if isinstance(image, Image.Image) else 1


def turn_back(masks: Tensor, given: int) -> Tensor:
    """Turn masks (..., H, W) of an upright picture into the frame of its stored pixels.

    Args:
        given: the picture's EXIF orientation.
    """
    if given == 1:
        return masks
    if given in (5, 7):
        turned = masks.transpose(-2, -1)
        return turned if given == 5 else turned.flip(-2, -1)
    if given in (2, 3, 4):
        return masks.flip({2: (-1,), 3: (-2, -1), 4: (-2,)}[given])
    return torch.rot90(masks, 1 if given == 6 else -1, (-2, -1))


def turn_places_back(places: Sequence[Place], size: Sequence[int], given: int) -> tuple[Place, ...]:
    """Turn boxes and points in pixels of an upright picture as `turn_back` turns its masks.

    Args:
        places: (left, top, right, bottom) each.
        size: (H, W) of the upright picture.
        given: the picture's EXIF orientation.
    """
    height, width = size
    turned = []
    for left, top, right, bottom in places:
        if given in (2, 3):
            left, right = width - right, width - left
        if given in (3, 4):
            top, bottom = height - bottom, height - top
        if given in (7, 8):  # what is low lies on the left
            top, bottom = height - bottom, height - top
        if given in (6, 7):
            left, right = width - right, width - left
        turned.append((top, left, bottom, right) if given > 4 else (left, top, right, bottom))
    return tuple(turned)


def as_stored(image: Image.Image) -> Image.Image:
    """Return a picture in the frame of its stored pixels, for example for annotations in these
    pixels."""
    plain = image.copy()
    plain.info = {}
    return plain
