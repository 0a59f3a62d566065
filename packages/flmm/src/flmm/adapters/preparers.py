"""Images as LMMs want them: padded, in two sizes, or in tiles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from clim_data.pixels import pixels, to_rgb
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from flmm.adapters.frames import ImageFrame, PreparedImage

BICUBIC = Image.Resampling.BICUBIC


class ImagePreparer(Protocol):
    """What makes a `PreparedImage` of a PIL image."""

    def __call__(self, image: Image.Image) -> PreparedImage: ...


@dataclass(frozen=True)
class PadToSquare:
    """The long edge scaled to `size`, the rest of the square filled with the mean colour; nothing
    is cropped.

    Used by LLaVA-1.5, HPT, Mini-Gemini and DeepSeek-VL. `size` None keeps the image's own size and
    only pads.

    Args:
        size: side of the square T.
        mean, std: three numbers for pixels in [0, 1]; None leaves them in [0, 1] and pads with grey
            127.
        scale_first: the other edge is int(edge / long edge * T), which floats can make one pixel
            shorter than the rounded down edge * T / long edge (DeepSeek-VL).
        least_px: smallest edge after scaling (DeepSeek-VL: 14).

    Raises:
        ValueError: an option is out of range.
    """

    size: int | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    scale_first: bool = False
    least_px: int = 1

    def __post_init__(self):
        if (self.size is not None and self.size < 1) or self.least_px < 1:
            raise ValueError(
                f"size={self.size} and least_px={self.least_px} must be at least 1 pixel"
            )
        if (self.mean is None) != (self.std is None) or any(
            len(x or (0, 0, 0)) != 3 for x in (self.mean, self.std)
        ):
            raise ValueError(
                f"mean={self.mean} and std={self.std} must be three numbers each, or both None"
            )

    @classmethod
    def of_processor(cls, processor: Any, **options: Any) -> "PadToSquare":
        """Take size, mean and std from a transformers image processor, so that a model folder
        decides them.

        Raises:
            ValueError: its size is not one number, or it resizes by another filter than bicubic.
        """
        sides = {value for value in dict(processor.size).values() if value is not None}
        if len(sides) != 1:
            raise ValueError(
                f"size {processor.size} of the image processor is not a square: use another "
                "preparer"
            )
        if processor.resample not in (None, BICUBIC):
            raise ValueError(
                f"resample {processor.resample} of the image processor is not bicubic: use another "
                "preparer"
            )
        scaled = processor.do_normalize
        mean, std = (
            tuple(x) if scaled else None for x in (processor.image_mean, processor.image_std)
        )
        return cls(sides.pop(), mean, std, **options)

    @cached_property
    def colour(self) -> tuple[int, ...]:
        """RGB of the padding."""
        return (
            (127, 127, 127) if self.mean is None else tuple(int(255 * value) for value in self.mean)
        )

    def frame(self, height: int, width: int) -> ImageFrame:
        """Geometry of an image of this size."""
        longest = max(height, width)
        side = self.size or longest
        content = tuple(self._scaled(edge, longest, side) for edge in (height, width))
        return ImageFrame.centred((height, width), content, (side, side))

    def _scaled(self, edge: int, longest: int, side: int) -> int:
        scaled = int(edge / longest * side) if self.scale_first else edge * side // longest
        return max(scaled, self.least_px)

    def padded(self, image: Image.Image) -> tuple[Image.Image, ImageFrame]:
        """The square as an RGB image, and its frame."""
        image = to_rgb(image)
        frame = self.frame(image.height, image.width)
        canvas = Image.new("RGB", frame.padded_size[::-1], self.colour)
        canvas.paste(resize(image, frame.content_size), (frame.left, frame.top))
        return canvas, frame

    def __call__(self, image: Image.Image) -> PreparedImage:
        """float32 (3, T, T)."""
        canvas, frame = self.padded(image)
        return PreparedImage(
            {"pixel_values": normalise(pixels(canvas), self.mean, self.std)}, frame
        )


@dataclass(frozen=True)
class HybridSquare:
    """DeepSeek-VL 7B: a large square for its SAM tower, and the same square, shrunk as a tensor,
    for its SigLIP tower.

    Args:
        large: makes the large square; its mean and std are those of the SAM tower.
        size: side of the small square; mean, std: of the SigLIP tower, None for none.
    """

    large: PadToSquare
    size: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    def __call__(self, image: Image.Image) -> PreparedImage:
        """ "pixel_values" float32 (3, size, size) and "high_res_pixel_values" (3, T, T)."""
        canvas, frame = self.large.padded(image)
        raw = pixels(canvas)
        fine = normalise(raw, self.large.mean, self.large.std)
        scaled = raw[None].float() / 255
        small = F.interpolate(
            scaled, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False
        )[0]
        coarse = small if self.mean is None else normalise(small * 255, self.mean, self.std)
        return PreparedImage({"pixel_values": coarse, "high_res_pixel_values": fine}, frame)


@dataclass(frozen=True)
class AnyResolutionTiles:
    """LLaVA-NeXT: the image squashed to one tile, then the tiles of its best-fitting grid, padded
    with black.

    Args:
        size: side of a tile T.
        mean, std: three numbers for pixels in [0, 1].
        grid_pinpoints: the (height, width) that a grid may have, multiples of T.

    Raises:
        ValueError: no pinpoints, or one that is not made of whole tiles.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    grid_pinpoints: Sequence[tuple[int, int]]

    def __post_init__(self):
        if not self.grid_pinpoints or any(
            edge % self.size for point in self.grid_pinpoints for edge in point
        ):
            raise ValueError(
                f"grid_pinpoints={self.grid_pinpoints} must be multiples of the tile side "
                f"{self.size}"
            )

    @classmethod
    def of_processor(cls, processor: Any) -> "AnyResolutionTiles":
        """Take size, mean, std and pinpoints from transformers' LLaVA-NeXT image processor."""
        size = dict(processor.crop_size)["height"]
        points = tuple(tuple(point) for point in processor.image_grid_pinpoints)
        return cls(size, tuple(processor.image_mean), tuple(processor.image_std), points)

    def frame(self, height: int, width: int) -> ImageFrame:
        """Geometry of the tiles for an image of this size; the padded size is that of the grid."""
        from transformers.image_processing_utils import select_best_resolution  # seconds to import

        tall, wide = select_best_resolution(
            (height, width), [list(point) for point in self.grid_pinpoints]
        )
        by_height, by_width = tall / height, wide / width
        if by_width < by_height:
            content = (min(math.ceil(height * by_width), tall), wide)
        else:
            content = (tall, min(math.ceil(width * by_height), wide))
        return ImageFrame.centred((height, width), content, (tall, wide))

    def __call__(self, image: Image.Image) -> PreparedImage:
        """float32 (1 + rows * columns, 3, T, T): the squashed image, then the tiles row by row."""
        image = to_rgb(image)
        frame = self.frame(image.height, image.width)
        canvas = Image.new("RGB", frame.padded_size[::-1])
        canvas.paste(resize(image, frame.content_size), (frame.left, frame.top))
        rows, columns = (edge // self.size for edge in frame.padded_size)
        tiles = (
            pixels(canvas).unflatten(1, (rows, self.size)).unflatten(3, (columns, self.size))
        )  # (3, r, T, c, T)
        tiles = tiles.permute(1, 3, 0, 2, 4).flatten(0, 1)  # (r * c, 3, T, T)
        whole = pixels(resize(image, (self.size, self.size)))
        values = normalise(torch.cat([whole[None], tiles]), self.mean, self.std)
        return PreparedImage({"pixel_values": values}, frame)


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Bicubic resize by Pillow to (height, width)."""
    return image if (image.height, image.width) == size else image.resize(size[::-1], BICUBIC)


def normalise(values: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> Tensor:
    """Pixels (..., 3, H, W) in 0..255 to float32 in [0, 1], then less mean and divided by std when
    they are given."""
    scaled = values.float() / 255
    if mean is None:
        return scaled
    centre, scale = (torch.tensor(x, dtype=torch.float32).view(3, 1, 1) for x in (mean, std))
    return (scaled - centre) / scale
