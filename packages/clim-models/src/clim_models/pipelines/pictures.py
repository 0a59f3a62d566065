"""Pictures from all sources of a user: a file, a URL, bytes, Pillow, numpy or torch.

clim-data reads files for training and evaluation by the same rules; neither package may import the
other, and a test compares the two readers.
"""

import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from clim_models.version import __version__

Source = str | os.PathLike[str] | bytes | Image.Image | np.ndarray | Tensor
"""The sources of a picture: path, http or https URL, encoded bytes, Pillow image, numpy array
(height, width, 3) or (height, width), tensor (3, height, width). Arrays and tensors are uint8 RGB.
"""

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 128_000_000
MAX_BYTES = 256 << 20
TIMEOUT_S = 30
_URLS = ("http://", "https://")
_FILTERS = threading.Lock()
_WHITE = (255, 255, 255, 255)
_RGB = "pass uint8 RGB, (height, width, 3) as an array or (3, height, width) as a tensor"


def is_url(source: object) -> bool:
    """Return whether a source is an http or https address."""
    return isinstance(source, str) and source.lower().startswith(_URLS)


def name_of_picture(source: Source, number: int = 0) -> str:
    """Return the name of a picture for messages and files: its path or address, or its number."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    known = getattr(source, "filename", "")
    return known or f"picture {number}"


def fetch(source: Source) -> Source:
    """Return the bytes behind a URL; every other source as it is.

    Raises:
        ValueError: the address cannot be fetched, or holds too many bytes.
    """
    if not is_url(source):
        return source
    assert isinstance(source, str)
    try:
        request = Request(source, headers={"User-Agent": f"clim-models/{__version__}"})
        with urlopen(request, timeout=TIMEOUT_S) as answer:
            content: bytes = answer.read(MAX_BYTES + 1)
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ValueError(
            f"cannot fetch {source} ({reason}): check the address and the network, or pass a file"
        ) from error
    if len(content) > MAX_BYTES:
        raise ValueError(f"{source} holds more than {MAX_BYTES >> 20} MB: pass a smaller picture")
    return content


def read_picture(source: Source, *, name: str = "", at_least: Callable | None = None) -> Tensor:
    """Read a picture upright: EXIF turns are applied, transparent pixels are white.

    Args:
        source: see `Source`.
        name: what messages call it; None takes its path or address.
        at_least: from (height, width) of the stored picture to the size that is enough for the
            caller. A JPEG may then be decoded smaller (by 1/2, 1/4 or 1/8), never below this.

    Returns:
        uint8 RGB (3, height, width).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a JPEG, PNG or WebP, damaged, larger than `MAX_PIXELS`, or an array of
            another shape or type.
    """
    return read_with_size(source, name=name, at_least=at_least)[0]


def read_with_size(
    source: Source, *, name: str = "", at_least: Callable | None = None
) -> tuple[Tensor, tuple[int, int]]:
    """Read a picture like `read_picture`, and return also (height, width) of the whole picture."""
    name = name or name_of_picture(source) or "a path without a name"
    if isinstance(source, Tensor):
        pixels = _checked(source, name)
        return pixels, (pixels.shape[1], pixels.shape[2])
    if isinstance(source, np.ndarray):
        pixels = _pixels_of_array(source, name)
        return pixels, (pixels.shape[1], pixels.shape[2])

    image = source if isinstance(source, Image.Image) else _open(fetch(source), name)
    if not (image.width and image.height):
        raise ValueError(f"{name} has {image.width} x {image.height} pixels: pass a picture")
    # First: a picture that is decoded does not say its depth any more.
    deep = _is_deep_colour(image)
    try:
        if image.format in ("PNG", "WEBP"):
            # Only a JPEG can be decoded smaller, and a PNG may have its tags behind its pixels.
            image.load()
        turned = _swaps_sides(image)
        size = (image.width, image.height) if turned else (image.height, image.width)
        if at_least is not None and not isinstance(source, Image.Image):
            height, width = at_least(size)
            # `draft` counts in the stored orientation, and chooses a scale that is not below this.
            image.draft("RGB", (height, width) if turned else (width, height))
        image.load()
        with _quietly():
            upright = ImageOps.exif_transpose(image)
        rgb = _to_rgb(upright, name)
    except Exception as error:  # see _open
        if image is not source:
            image.close()
        raise ValueError(f"cannot read {name} ({error}): pass a whole jpg, png or webp") from error
    if deep and _is_dark(upright.convert("RGB")):
        raise ValueError(
            f"{name} has 16 bits a channel, of which only the low 8 or 12 are used: convert it to "
            "8 bits"
        )
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1), size


def _open(source: Any, name: str) -> Image.Image:
    """Open a file or bytes by the header.

    Raises:
        FileNotFoundError, ValueError: see `read_picture`.
    """
    try:
        with _quietly():
            stream = io.BytesIO(source) if isinstance(source, bytes) else Path(source).expanduser()
            image = Image.open(stream, formats=FORMATS)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"no picture at {name}: check the path") from None
    except PermissionError as error:
        raise ValueError(f"{name} may not be read: check its permissions") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} is too large ({error}): make it smaller") from error
    except Exception as error:  # a damaged header can make a reader of Pillow raise nearly anything
        raise ValueError(
            f"{name} is no picture that can be read: pass a jpg, png or webp"
        ) from error
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"{name} has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}: make it "
            "smaller"
        )
    return image


@contextmanager
def _quietly() -> Iterator[None]:
    """Leave out Pillow's warnings of damaged tags, which say nothing about the pixels.

    Python's filters are those of all threads: two threads that change them at once would leave them
    changed for good.
    """
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _swaps_sides(image: Image.Image) -> bool:
    """Return whether the EXIF turn of an image swaps its width and height."""
    try:
        with _quietly():
            return image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except Exception:  # damaged tags raise nearly anything; viewers show such an image as stored
        return False


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Convert any mode to RGB, on white; grey of 16 bits is scaled by its range."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image, name)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, _WHITE), rgba).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Scale grey values by the smallest usual range that holds them.

    Integers may reach 255, 4095 or 65535, floats 1 or 255.
    """
    values = np.asarray(image)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    tops = (1.0, 255.0) if image.mode == "F" else (255.0, 4095.0, 65535.0)
    top = next((top for top in tops if high <= top), None)
    if top is None or not low >= 0:  # NaN is not at least 0 either
        raise ValueError(f"{name} has grey values from {low:g} to {high:g}: convert it to 8 bits")
    if top == 65535.0:
        return Image.fromarray((values.astype(np.int64) >> 8).astype(np.uint8))
    return Image.fromarray(np.rint(values * (255.0 / top)).astype(np.uint8))


def _is_deep_colour(image: Image.Image) -> bool:
    """Tell whether a colour png has 16 bits a channel, of which Pillow drops the low 8."""
    if image.format != "PNG" or image.mode not in ("RGB", "RGBA", "LA"):
        return False
    return any(str(tile[3]).endswith("16B") for tile in getattr(image, "tile", ()))


def _is_dark(image: Image.Image) -> bool:
    """Tell whether all values are below 16, 4096 of 65536: black, or of another range."""
    extremes: Any = image.getextrema()  # one pair for each channel
    return max(high for _, high in extremes) < 16


def _pixels_of_array(array: np.ndarray, name: str) -> Tensor:
    """Turn an array (height, width, 3), or grey (height, width), into a picture."""
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError(f"{name} is an array of {array.dtype} and shape {array.shape}; {_RGB}")
    return _checked(torch.from_numpy(array.copy()).permute(2, 0, 1), name)


def _checked(pixels: Tensor, name: str) -> Tensor:
    """Return a tensor on the CPU if it is a picture.

    Raises:
        ValueError: it is not.
    """
    shape = tuple(pixels.shape)
    if pixels.dtype != torch.uint8 or len(shape) != 3 or shape[0] != 3 or 0 in shape:
        raise ValueError(f"{name} is a tensor of {pixels.dtype} and shape {shape}; {_RGB}")
    return pixels.cpu()
