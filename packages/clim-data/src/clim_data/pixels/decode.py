"""Image bytes to RGB pixels: one decoder with size limit, alpha compositing and JPEG DCT
scaling."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from clim_data.faults import BrokenSample

if TYPE_CHECKING:
    from torch import Tensor


SUFFIX_OF_FORMAT = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}


WHITE = (255, 255, 255)
MAX_PIXELS = 128_000_000
_SHRINK = "make it smaller, or raise max_pixels or CLIM_DATA_MAX_PIXELS"


def pixel_limit(max_pixels: int | None = None) -> int:
    """Pixels that an image may have: the argument, or else `CLIM_DATA_MAX_PIXELS`, or else 128
    million.

    Raises:
        ValueError: the environment variable is no whole number above 0.
    """
    if max_pixels is not None:
        return max_pixels
    stated = os.environ.get("CLIM_DATA_MAX_PIXELS", str(MAX_PIXELS))
    if not stated.isdecimal() or int(stated) < 1:
        raise ValueError(
            f"CLIM_DATA_MAX_PIXELS={stated!r} must be a whole number of at least 1, or not be set"
        )
    return int(stated)


def open_image(
    source: bytes | str | Path, name: str = "", *, max_pixels: int | None = None
) -> Image.Image:
    """Open an image by its header only; pixels are decoded later.

    Pixels stay in the stored orientation (an EXIF rotation is not applied), the frame that
    COCO-style annotations use.

    Args:
        source: encoded bytes, or a path.
        name: what to call the image in an error.
        max_pixels: see `pixel_limit`. Pillow itself refuses more than twice
            `PIL.Image.MAX_IMAGE_PIXELS`.

    Raises:
        BrokenSample: no such file, not an image, or more pixels than the limit.
    """
    limit = pixel_limit(max_pixels)
    name = name or (str(source) if not isinstance(source, bytes) else "image")
    try:
        with (
            warnings.catch_warnings()
        ):  # Pillow warns of half of what it refuses; the limit here is ours
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except FileNotFoundError:
        raise BrokenSample("missing image", name, "no such file") from None
    except Image.DecompressionBombError as fault:
        raise BrokenSample(
            "image too large", name, f"{fault}; {_SHRINK} and PIL.Image.MAX_IMAGE_PIXELS"
        ) from None
    except Exception as fault:  # a damaged header can make a Pillow plugin raise nearly anything
        raise BrokenSample("unreadable image", name, _first_line(fault)) from None
    if image.width * image.height > limit:
        detail = f"its header says {image.width} x {image.height} pixels, at most {limit} are decoded; {_SHRINK}"
        raise BrokenSample("image too large", name, detail)
    return image


def decode_rgb(
    source: bytes | str | Path | Image.Image,
    *,
    at_least: tuple[float, float] | None = None,
    background: tuple[int, int, int] = WHITE,
    name: str = "",
) -> Tensor:
    """Decode to RGB, shape (3, H, W), uint8 (a channels-last view, which the resizer is fastest
    on).

    Args:
        source: encoded bytes, a path, or an image from `open_image`.
        at_least: (width, height) in pixels that is enough for the caller. A JPEG may then come out
            smaller than stored, by 1/2, 1/4 or 1/8 (DCT scaling), but never smaller than this.
        background: colour under transparent pixels.
        name: what to call the image in an error.

    Raises:
        BrokenSample: the file is missing, damaged, truncated or absurdly large.
    """
    return pixels(load_rgb(source, at_least=at_least, background=background, name=name))


def load_rgb(
    source: bytes | str | Path | Image.Image,
    *,
    at_least: tuple[float, float] | None = None,
    background: tuple[int, int, int] = WHITE,
    name: str = "",
) -> Image.Image:
    """Same as `decode_rgb`, as a PIL image of mode RGB."""
    image = source if isinstance(source, Image.Image) else open_image(source, name)
    try:
        if at_least is not None:
            image.draft(
                image.mode, (max(1, int(np.ceil(at_least[0]))), max(1, int(np.ceil(at_least[1]))))
            )
        image.load()
        return to_rgb(image, background)
    except Exception as fault:  # see open_image
        raise BrokenSample("unreadable image", name or "image", _first_line(fault)) from None


def to_rgb(image: Image.Image, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """Convert any PIL mode to RGB; transparent pixels show `background`, 16-bit grey is scaled to 8
    bit."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        image = Image.fromarray(
            (np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)
        )
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, (*background, 255))
        return Image.alpha_composite(canvas, rgba).convert("RGB")
    return image.convert("RGB")


def pixels(image: Image.Image) -> Tensor:
    """PIL image of mode RGB or L -> uint8 tensor (C, H, W)."""
    import torch  # here, so that packing and checking images does not wait for it

    # One packing and one copy; numpy would ask Pillow for the packed bytes twice.
    packed = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return packed.view(image.height, image.width, len(image.getbands())).permute(2, 0, 1)


def _first_line(fault: Exception) -> str:
    text = str(fault).splitlines()
    return f"{type(fault).__name__}: {text[0]}" if text else type(fault).__name__
