"""Phrases of one's own grounded in one image: arrays, and files with the picture and the masks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from clim_data.files import write_json
from clim_data.pixels import box_of_mask, encode_mask, xyxy_to_xywh
from clim_eval.pictures import write_png
from PIL import Image

from flmm.grounded import GroundedLMM, Grounding
from flmm.grounders.heads import ground_phrases
from flmm.grounders.pictures import picture_path, read_image
from flmm.pictures.masks import grounding_figure
from flmm.text.prompts import DESCRIBE


def ground(
    image: Image.Image | str | Path,
    phrases: Sequence[str],
    model: GroundedLMM,
    *,
    request: str = DESCRIBE,
) -> np.ndarray:
    """Masks of phrases in an image, bool (N, H, W) at its size, in the order of the phrases.

    Args:
        image: or its file.
        phrases: such as "a red car"; they are read by the LMM one after the other, as if it had
            said them.
        model: of `load_grounded`.
        request: what the LMM was asked, as it were.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no phrase, an empty one, more than the context holds, or the file is no image.
    """
    return found_masks(ground_phrases(model, read_image(image), phrases, request=request))


def found_masks(masks: Grounding) -> np.ndarray:
    """bool (N, H, W): where SAM's logits are positive."""
    return (masks.refined > 0).cpu().numpy()


def masks_record(masks: np.ndarray, phrases: Sequence[str]) -> dict[str, Any]:
    """Masks as plain data: "size" [H, W], "phrases" [{"phrase", "segmentation" (COCO RLE), "area",
    "bbox" XYWH px}]."""
    found = [
        {
            "phrase": phrase,
            "segmentation": encode_mask(mask),
            "area": int(mask.sum()),
            "bbox": list(xyxy_to_xywh(box_of_mask(mask) or (0, 0, 0, 0))),
        }
        for mask, phrase in zip(masks, phrases, strict=True)
    ]
    return {"size": list(masks.shape[1:]), "phrases": found}


def save_grounding(
    path: str | Path,
    image: Image.Image,
    masks: np.ndarray,
    phrases: Sequence[str],
    *,
    title: str = "",
    about: Mapping[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Write the drawn masks as PNG, and beside it the same name with .json: `about` and
    `masks_record`.

    Raises:
        ValueError: as `picture_path`.
    """
    path = picture_path(path)
    beside = path.with_suffix(".json")
    write_png(path, grounding_figure(image, masks, phrases, title=title))
    write_json(beside, {**(about or {}), **masks_record(masks, phrases)}, indent=1)
    return path, beside
