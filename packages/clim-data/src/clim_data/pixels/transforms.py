"""Geometry of the image transforms, as pure functions.

Every function takes a PIL image (resized by Pillow, bit for bit the reference) or a uint8/float
tensor (C, H, W) (resized by torchvision, several times faster; for uint8 within one grey level of
Pillow, but for about one value in a million of a photograph, which is two levels off: both round
between their two passes). Sizes are in pixels; windows are (left, top, right, bottom) in pixels of
the given image.
"""

import math
import random

from PIL import Image
from torch import Tensor

from clim_data.pixels.decode import pixels

Picture = Image.Image | Tensor
_PIL_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def size_of(image: Picture) -> tuple[int, int]:
    """Return (height, width) in pixels."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    return image.shape[-2], image.shape[-1]


def resize(
    image: Picture, size: tuple[int, int], *, antialias: bool = True, mode: str = "bicubic"
) -> Picture:
    """Resize to `size` = (height, width). Pillow always antialiases; `antialias` is for tensors."""
    if isinstance(image, Image.Image):
        return image.resize((size[1], size[0]), _PIL_FILTERS[mode])

    # Imported here: it takes two seconds, and most commands answer without a resized tensor.
    from torchvision.transforms.v2 import InterpolationMode, functional

    interpolation = InterpolationMode(mode)
    return functional.resize(image, list(size), interpolation=interpolation, antialias=antialias)


def to_pixels(image: Picture) -> Tensor:
    """Turn a PIL image into a uint8 RGB tensor (alpha is dropped); return a tensor as it is."""
    return pixels(image.convert("RGB")) if isinstance(image, Image.Image) else image


def longest_side_size(height: int, width: int, target: int) -> tuple[int, int]:
    """Return (height, width) after scaling the longest side to `target`, rounded, at least 1."""
    scale = target / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def short_side_size(size: tuple[int, int], short: int, long: int) -> tuple[int, int]:
    """Return (height, width) of a picture whose short side becomes `short`.

    The long side stays within `long`: where it would not, the picture becomes smaller. Sides are
    rounded half up and are at least 1.
    """
    factor = min(long / max(size), short / min(size))
    height, width = (max(int(edge * factor + 0.5), 1) for edge in size)
    return height, width


def letterbox(image: Picture, target: int, *, antialias: bool = True) -> Tensor:
    """Scale the longest side to `target` px, zeros right and below: (C, target, target)."""
    resized = to_pixels(
        resize(image, longest_side_size(*size_of(image), target), antialias=antialias)
    )
    return _place(resized, _canvas(resized, target), top=0, left=0)


def letterbox_into(image: Picture, canvas: Tensor) -> None:
    """Do what `letterbox` does in a square of a batch, (3, target, target) uint8."""
    size = longest_side_size(*size_of(image), canvas.shape[-1])
    _place(to_pixels(resize(image, size)), canvas, top=0, left=0)


def centred_place(height: int, width: int, target: int) -> tuple[tuple[int, int], int, int]:
    """Return ((height, width), top, left) of an image in the square of `letterbox_centred`."""
    size = longest_side_size(height, width, target)
    return size, (target - size[0]) // 2, (target - size[1]) // 2


def letterbox_centred(image: Picture, target: int) -> Tensor:
    """Scale the longest side to `target` px, zeros around: (C, target, target).

    An odd spare pixel is at the right or below.
    """
    size, top, left = centred_place(*size_of(image), target)
    resized = to_pixels(resize(image, size))
    return _place(resized, _canvas(resized, target), top=top, left=left)


def center_crop(image: Picture, target: int) -> Tensor:
    """Scale the shortest side to `target` px and cut the central square: (C, target, target)."""
    height, width = size_of(image)
    if height <= width:
        size = (target, int(target * width / height))
    else:
        size = (int(target * height / width), target)
    resized = to_pixels(resize(image, size))
    top, left = round((size[0] - target) / 2), round((size[1] - target) / 2)
    return resized[:, top : top + target, left : left + target]


def crop(image: Picture, window: tuple[float, float, float, float]) -> Picture:
    """Cut a window that lies inside the image. Its edges are rounded to whole pixels, and it is at
    least one pixel wide and high."""
    left, top, right, bottom = (round(v) for v in window)
    height, width = size_of(image)
    left, top = min(left, width - 1), min(top, height - 1)
    right, bottom = max(right, left + 1), max(bottom, top + 1)

    if isinstance(image, Image.Image):
        return image.crop((left, top, right, bottom))
    return image[..., top:bottom, left:right]


def crop_resize(
    image: Picture, window: tuple[float, float, float, float], size: tuple[int, int]
) -> Tensor:
    """Cut a window and resize it to (height, width), bicubic with antialias: uint8 (C, height,
    width)."""
    return to_pixels(resize(crop(image, window), size))


def sample_crop_window(
    size: tuple[int, int],
    rng: random.Random,
    *,
    scale: tuple[float, float] = (0.9, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[int, int, int, int]:
    """Draw the window of a random resized crop: a fraction of the area (uniform) and an aspect
    ratio (log-uniform).

    Args:
        size: (height, width) of the image in pixels.
        rng: source of all randomness; the window is a function of its state.

    Returns:
        (left, top, right, bottom) in pixels. After ten draws that do not fit, the largest central
        window whose aspect ratio lies in `ratio` (the rule of torchvision's RandomResizedCrop).
    """
    height, width = size
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * rng.random())
        aspect = math.exp(log_low + (log_high - log_low) * rng.random())
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.random() * (height - h + 1)), int(rng.random() * (width - w + 1))
            return left, top, left + w, top + h

    # None of the ten fits: take the central window.
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, max(1, round(height * aspect))), min(height, max(1, round(width / aspect)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _canvas(image: Tensor, target: int) -> Tensor:
    """Return an uninitialised square for `image`."""
    if image.is_floating_point():
        return image.new_empty(image.shape[0], target, target)
    # Channels last, as decoded: copying rows is several times faster than changing the layout.
    return image.new_empty(target, target, image.shape[0]).permute(2, 0, 1)


def _place(image: Tensor, canvas: Tensor, *, top: int, left: int) -> Tensor:
    """Put `image` into `canvas` with zeros around it."""
    height, width = image.shape[-2:]
    canvas[:, :top] = canvas[:, top + height :] = 0
    canvas[:, :, :left] = canvas[:, :, left + width :] = 0
    canvas[:, top : top + height, left : left + width] = image
    return canvas
