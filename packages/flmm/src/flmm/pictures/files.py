"""Pictures as files: reading them for grounding, and the path of the result."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
from clim_data import BrokenSample
from clim_data.pixels import load_rgb
from clim_models.pipelines import is_url, picture_path, read_picture
from PIL import Image

Picture = Image.Image | np.ndarray | str | Path
"""A picture in memory, an array uint8 (H, W), (H, W, 3) or (H, W, 4), a file, or a URL (a text that
begins with http:// or https://)."""

Pictures = list[Any] | tuple[Any, ...]
"""Several pictures, each a `Picture`."""


def read_image(image: Picture) -> Image.Image:
    """Read a picture as RGB, upright.

    Args:
        image: a picture in memory, an array uint8 (H, W), (H, W, 3) or (H, W, 4), a file, or a URL.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no picture, a damaged one, an array of another kind, or a URL that cannot
            be fetched.
    """
    if isinstance(image, np.ndarray):
        image = _picture_of(image)
    if isinstance(image, Image.Image):
        return load_rgb(image, name="the image", oriented=True)
    if is_url(image):
        return Image.fromarray(read_picture(image).permute(1, 2, 0).contiguous().numpy())
    path = Path(image)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no image {path}: pass the path of a JPEG, PNG or WebP file"
        )
    try:
        return load_rgb(path, name=path.name, oriented=True)
    except (BrokenSample, OSError) as fault:
        raise ValueError(
            f"{path} is damaged or no image ({fault}): pass a whole JPEG, PNG or WebP file"
        ) from fault


def name_of_picture(image: str) -> str:
    """Return the name of a picture's file: the last part of its path or URL."""
    path = urlparse(image).path if is_url(image) else image
    return Path(path).name or "picture"


def _picture_of(array: np.ndarray) -> Image.Image:
    """Make a picture of an array."""
    is_grey = array.ndim == 2
    is_colour = array.ndim == 3 and array.shape[2] in (3, 4)
    if array.dtype != np.uint8 or not (is_grey or is_colour) or not array.size:
        raise ValueError(
            f"an array of {array.dtype} {array.shape} is no picture: pass uint8 (H, W, 3)"
        )
    return Image.fromarray(array)


def grounding_path(path: str | Path, *, source: str | Path | None = None) -> Path:
    """Check the path of a picture of masks, whose json lies next to it; its folder is made.

    Args:
        path: of the picture that will be written.
        source: the picture that is read, a file or an address.

    Raises:
        ValueError: as `clim_models.pipelines.picture_path`, or the json next to it is not one of
            masks.
    """
    path = picture_path(path, source=source)
    beside = path.with_suffix(".json")
    if beside.exists() and not _holds_masks(beside):
        raise ValueError(f"{beside} is a file of yours, not of masks: name another place")
    return path


def _holds_masks(path: Path) -> bool:
    """Tell whether a json is one that flmm writes next to a picture."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, OSError, RecursionError):
        return False
    return isinstance(content, dict) and {"size", "phrases"} <= content.keys()
