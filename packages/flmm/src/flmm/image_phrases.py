"""Phrases of one's own grounded in one image: arrays, and files with the picture and the masks."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from clim_data import BrokenSample
from clim_data.images import open_image, to_rgb
from clim_data.regions import encode_mask
from clim_eval.report import write_png
from PIL import Image, ImageOps

from flmm.chat import ground_phrases
from flmm.grounded import GroundedLMM, Grounding
from flmm.pictures import grounding_figure
from flmm.prompts import DESCRIBE


def ground(
    image: Image.Image | str | Path, phrases: Sequence[str], model: GroundedLMM, *, request: str = DESCRIBE
) -> np.ndarray:
    """Masks of phrases in an image, bool (N, H, W) at its size, in the order of the phrases.

    Args:
        image: or its file.
        phrases: such as "a red car"; they are read by the LMM one after the other, as if it had said them.
        model: of `load_grounded`.
        request: what the LMM was asked, as it were.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no phrase, an empty one, more than the context holds, or the file is no image.
    """
    return found_masks(ground_phrases(model, read_image(image), phrases, request=request))


def read_image(image: Image.Image | str | Path) -> Image.Image:
    """RGB, turned as a camera's file says; FileNotFoundError or ValueError tell what is wrong with a file."""
    if isinstance(image, Image.Image):
        return to_rgb(image)
    path = Path(image)
    if not path.is_file():
        raise FileNotFoundError(f"there is no image {path}: pass the path of a JPEG, PNG or WebP file")
    try:
        opened = open_image(path, path.name)
        return to_rgb(ImageOps.exif_transpose(opened))
    except (BrokenSample, OSError) as fault:
        raise ValueError(f"{path} is damaged or no image ({fault}): pass a whole JPEG, PNG or WebP file") from fault


def found_masks(masks: Grounding) -> np.ndarray:
    """bool (N, H, W): where SAM's logits are positive."""
    return (masks.refined > 0).cpu().numpy()


def masks_record(masks: np.ndarray, phrases: Sequence[str]) -> dict[str, Any]:
    """Masks as plain data: "size" [H, W], "phrases" [{"phrase", "segmentation" (COCO RLE), "area", "bbox" XYWH px}]."""
    found = [
        {"phrase": phrase, "segmentation": encode_mask(mask), "area": int(mask.sum()), "bbox": _box(mask)}
        for mask, phrase in zip(masks, phrases, strict=True)
    ]
    return {"size": list(masks.shape[1:]), "phrases": found}


def _box(mask: np.ndarray) -> list[int]:
    """XYWH in pixels; zeros for an empty mask."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return [0, 0, 0, 0]
    return [int(v) for v in (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)]


def picture_path(path: str | Path) -> Path:
    """The path of a picture that is to be written; its folder is made.

    Raises:
        ValueError: it does not end in .png, or that folder cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"cannot write a picture as {path.name}: give a name that ends in .png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ValueError(f"cannot write into {path.parent} ({fault}): name another place") from fault
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"cannot write {path}: check that path and who may write there, or name another")
    return path


def save_grounding(
    path: str | Path,
    image: Image.Image,
    masks: np.ndarray,
    phrases: Sequence[str],
    *,
    title: str = "",
    about: Mapping[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Write the drawn masks as PNG, and beside it the same name with .json: `about` and `masks_record`.

    Raises:
        ValueError: as `picture_path`.
    """
    path = picture_path(path)
    beside = path.with_suffix(".json")
    write_png(path, grounding_figure(image, masks, phrases, title=title))
    partial = beside.with_name(f".{beside.name}.part")
    partial.write_text(json.dumps({**(about or {}), **masks_record(masks, phrases)}, indent=1) + "\n")
    os.replace(partial, beside)
    return path, beside
