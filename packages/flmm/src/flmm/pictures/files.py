"""Pictures as files: read for grounding, and where the result goes."""

import os
from pathlib import Path

from clim_data import BrokenSample
from clim_data.pixels import load_rgb, to_rgb
from PIL import Image


def read_image(image: Image.Image | str | Path) -> Image.Image:
    """RGB, turned as a camera's file says; FileNotFoundError or ValueError tell what is wrong with
    a file."""
    if isinstance(image, Image.Image):
        return to_rgb(image)
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


def picture_path(path: str | Path) -> Path:
    """Return the path of a picture that is to be written; its folder is made.

    Raises:
        ValueError: it does not end in .png, or that folder cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"cannot write a picture as {path.name}: give a name that ends in .png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ValueError(
            f"cannot write into {path.parent} ({fault}): name another place"
        ) from fault
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(
            f"cannot write {path}: check that path and who may write there, or name another"
        )
    return path
