"""Image bytes to RGB pixels: one decoder with one list of formats, a size limit, EXIF rotation,
alpha compositing and JPEG DCT scaling."""

from __future__ import annotations

import io
import math
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from clim_data.faults import BrokenSample

if TYPE_CHECKING:
    from torch import Tensor


SUFFIX_OF_FORMAT = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
FORMATS = ("JPEG", "PNG", "WEBP")
"""Readers of Pillow that may open an image; no other one, and no other program, sees a byte. The
JPEG reader opens MPO, too."""

_STARTS = {  # the first bytes of formats that are not read, for the message
    "EPS or PostScript": (b"%!PS", b"\xc5\xd0\xd3\xc6"),
    "BMP": (b"BM",),
    "GIF": (b"GIF8",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "JPEG 2000": (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    "Photoshop": (b"8BPS",),
    "PBM, PGM or PPM": (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf", b"PF"),
    "DDS": (b"DDS ",),
    "ICO": (b"\0\0\1\0",),
    "IM": (b"Image type:",),
    "PCX": (b"\x0a\5\1",),
    "SGI": (b"\1\xda",),
    "TGA": (b"\0\0\2\0\0", b"\0\0\3\0\0", b"\0\0\x0a\0\0", b"\0\0\x0b\0\0"),
    "PDF": (b"%PDF",),
    "SVG or XML": (b"<svg", b"<?xml"),
}
_ORIENTATION = 0x0112  # the EXIF tag
_METADATA = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}  # where Pillow keeps it
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

WHITE = (255, 255, 255)
MAX_PIXELS = 128_000_000
_SHRINK = "make it smaller, or raise max_pixels or CLIM_DATA_MAX_PIXELS"


def pixel_limit(max_pixels: int | None = None) -> int:
    """Return the largest number of pixels that an image may have.

    It is the argument, or else `CLIM_DATA_MAX_PIXELS`, or else 128 million.

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
    """Open a JPEG, PNG or WebP by its header only; pixels are decoded later.

    Pixels stay in the stored orientation, the frame that COCO-style annotations use: `orientation`
    says how the image should be turned, `load_rgb(..., oriented=True)` turns it.

    Args:
        source: encoded bytes, or a path.
        name: name of the image, for errors.
        max_pixels: see `pixel_limit`. Pillow itself refuses more than twice
            `PIL.Image.MAX_IMAGE_PIXELS`.

    Raises:
        BrokenSample: no such file, not an image, an image of another format, or more pixels than
            the limit.
    """
    limit = pixel_limit(max_pixels)
    name = name or (str(source) if not isinstance(source, bytes) else "image")
    try:
        with warnings.catch_warnings():
            # Pillow warns of half of the size that it refuses (the limit here is ours), and of
            # damaged EXIF tags, which say nothing about the pixels.
            warnings.simplefilter("ignore")
            image = Image.open(
                io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS
            )
    except (FileNotFoundError, NotADirectoryError):
        raise BrokenSample("missing image", name, "no such file") from None
    except Image.DecompressionBombError as fault:
        raise BrokenSample(
            "image too large", name, f"{fault}; {_SHRINK} and PIL.Image.MAX_IMAGE_PIXELS"
        ) from None
    except Exception as fault:  # a damaged header can make a Pillow plugin raise nearly anything
        found = _other_format(source)
        if found:
            detail = f"{found}, not JPEG, PNG or WebP; convert it to jpg, png or webp"
            raise BrokenSample("unsupported format", name, detail) from None
        raise BrokenSample("unreadable image", name, _reason(fault)) from None

    if image.width * image.height > limit:
        size = f"{image.width} x {image.height} pixels"
        detail = f"its header says {size}, at most {limit} are decoded; {_SHRINK}"
        raise BrokenSample("image too large", name, detail)
    return image


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image, 1 to 8; 1 if it has none, or a damaged one.

    5 to 8 swap width and height. Only the header is read.
    """
    if not image.info.keys() & _METADATA:
        return 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tag = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged tags raise nearly anything; viewers show such an image as stored
        return 1
    return tag if tag in _TURNS else 1


def oriented_size(image: Image.Image) -> tuple[int, int]:
    """Return (width, height) of an opened image after its EXIF rotation."""
    turned = orientation(image) >= 5
    return (image.height, image.width) if turned else (image.width, image.height)


def decode_rgb(
    source: bytes | str | Path | Image.Image,
    *,
    at_least: tuple[float, float] | None = None,
    background: tuple[int, int, int] = WHITE,
    name: str = "",
    oriented: bool = False,
) -> Tensor:
    """Decode to RGB, shape (3, H, W), uint8 (a channels-last view, which the resizer is fastest
    on).

    Args:
        source: encoded bytes, a path, or an image from `open_image`.
        at_least: (width, height) in pixels that is enough for the caller. A JPEG may then come out
            smaller than stored, by 1/2, 1/4 or 1/8 (DCT scaling), but never smaller than this.
        background: colour under transparent pixels.
        name: what to call the image in an error.
        oriented: apply the EXIF rotation. `at_least` is then in the frame of the result. Leave it
            out where an annotation is in pixels: those belong to the stored image.

    Raises:
        BrokenSample: the file is missing, damaged, truncated, absurdly large, of another format,
            or has pixels whose range cannot be known.
    """
    image = load_rgb(source, at_least=at_least, background=background, name=name, oriented=oriented)
    return pixels(image)


def load_rgb(
    source: bytes | str | Path | Image.Image,
    *,
    at_least: tuple[float, float] | None = None,
    background: tuple[int, int, int] = WHITE,
    name: str = "",
    oriented: bool = False,
) -> Image.Image:
    """Decode as `decode_rgb`, to a PIL image of mode RGB."""
    image = source if isinstance(source, Image.Image) else open_image(source, name)
    name = name or (str(source) if isinstance(source, str | Path) else "image")
    # First: looking for tags may decode a png, and then its depth is not known any more.
    deep = _is_deep_colour(image)
    turn = orientation(image) if oriented else 1
    try:
        if at_least is not None:
            width, height = at_least if turn < 5 else at_least[::-1]
            image.draft(image.mode, (max(1, math.ceil(width)), max(1, math.ceil(height))))
        image.load()
        rgb = to_rgb(image, background)
    except BrokenSample as fault:
        raise BrokenSample(fault.reason, name, fault.detail) from None
    except Exception as fault:  # see open_image
        raise BrokenSample("unreadable image", name, _reason(fault)) from None

    if deep and _is_dark(rgb if "A" not in image.mode else image.convert("RGB")):
        detail = "16 bits a channel, of which only the low 8 or 12 are used; convert it to 8 bits"
        raise BrokenSample("unsupported pixels", name, detail)
    if turn == 1:
        return rgb
    turned = rgb.transpose(_TURNS[turn])
    for tag in _METADATA:  # Pillow copies them, and the next reader would turn the image again
        turned.info.pop(tag, None)
    return turned


def to_rgb(image: Image.Image, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """Convert any PIL mode to RGB; transparent pixels show `background`.

    Grey images of more than 8 bits are scaled: 16-bit ones by 255, 4095 or 65535, the smallest that
    holds their values; float ones in [0, 1] by 1, in [0, 255] not at all.

    Raises:
        BrokenSample: integers or floats out of these ranges, or no numbers.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, (*background, 255))
        return Image.alpha_composite(canvas, rgba).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale a grey image of integers or floats to 8 bits by the range that its values show."""
    values = np.asarray(image)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    tops: tuple[float, ...] = (255.0, 4095.0, 65535.0)
    kind = "integers"
    if image.mode == "F":
        tops, kind = (1.0, 255.0), "floats"
    top = next((top for top in tops if high <= top), None)
    if top is None or not low >= 0:  # NaN is not at least 0 either
        detail = f"mode {image.mode}, {kind} from {low:g} to {high:g}; convert it to 8 bits"
        raise BrokenSample("unsupported pixels", "image", detail)

    if top == 65535.0:
        return Image.fromarray((values.astype(np.int64) >> 8).astype(np.uint8))
    return Image.fromarray(np.rint(values * (255.0 / top)).astype(np.uint8))


def _is_deep_colour(image: Image.Image) -> bool:
    """Tell whether a colour png stores 16 bits a channel, of which Pillow drops the low 8."""
    if image.format != "PNG" or image.mode not in ("RGB", "RGBA", "LA"):
        return False
    return any(str(tile[3]).endswith("16B") for tile in getattr(image, "tile", ()))


def _is_dark(image: Image.Image) -> bool:
    """Tell whether all values are below 16, 4096 of 65536: black, or of another range."""
    # A colour image has one pair of extremes per band.
    extremes: Any = image.getextrema()
    return max(high for _, high in extremes) < 16


def pixels(image: Image.Image) -> Tensor:
    """Turn a PIL image of mode RGB or L into a uint8 tensor (C, H, W)."""
    import torch  # here, so that packing and checking images does not wait for it

    # One packing and one copy; numpy would ask Pillow for the packed bytes twice.
    packed = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return packed.view(image.height, image.width, len(image.getbands())).permute(2, 0, 1)


def _other_format(source: bytes | str | Path) -> str | None:
    """Name the format of an image that is not read, by its first bytes; None if it is not known."""
    if isinstance(source, bytes):
        head = source[:16]
    else:
        try:
            with open(source, "rb") as stream:
                head = stream.read(16)
        except OSError:
            return None

    if head[4:8] == b"ftyp":
        return "AVIF or HEIC"
    for format_name, starts in _STARTS.items():
        if head.startswith(starts):
            return format_name
    return None


def _reason(fault: Exception) -> str:
    """First line of an error, without the address of a stream, which differs in each process."""
    if isinstance(fault, UnidentifiedImageError):
        return "not JPEG, PNG or WebP"
    text = str(fault).splitlines()
    return f"{type(fault).__name__}: {text[0]}" if text else type(fault).__name__
