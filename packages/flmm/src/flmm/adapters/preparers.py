"""Images in the forms that LMMs need: padded, in two sizes, or in tiles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from clim_data.pixels import pixels, to_rgb
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from flmm.adapters.frames import ImageFrame, PreparedImage
from flmm.transformers_compat import best_canvas

BICUBIC = Image.Resampling.BICUBIC


@dataclass(frozen=True)
class PadToSquare:
    """A square with the whole image, its long edge scaled to `size`, padded with the mean colour.

    Used by LLaVA-1.5, HPT, Mini-Gemini and DeepSeek-VL. `size` None keeps the image's own size and
    only pads.

    Args:
        size: side of the square T.
        mean, std: three numbers for pixels in [0, 1]; None leaves them in [0, 1] and pads with grey
            127.
        scale_first: compute the other edge as int(edge / long edge * T), which floats can make one
            pixel shorter than edge * T / long edge, rounded down (DeepSeek-VL).
        least_px: smallest edge after scaling (DeepSeek-VL: 14).
        fill: RGB of the padding, where it is not the mean colour.

    Raises:
        ValueError: an option is out of range.
    """

    size: int | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    scale_first: bool = False
    least_px: int = 1
    fill: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if (self.size is not None and self.size < 1) or self.least_px < 1:
            raise ValueError(
                f"size={self.size} and least_px={self.least_px} must be at least 1 pixel"
            )
        three = all(len(values or (0, 0, 0)) == 3 for values in (self.mean, self.std))
        if (self.mean is None) != (self.std is None) or not three:
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
        if not processor.do_normalize:
            return cls(sides.pop(), None, None, **options)
        return cls(sides.pop(), tuple(processor.image_mean), tuple(processor.image_std), **options)

    @cached_property
    def colour(self) -> tuple[int, ...]:
        """RGB of the padding."""
        if self.fill is not None:
            return self.fill
        if self.mean is None:
            return (127, 127, 127)
        return tuple(int(255 * value) for value in self.mean)

    def frame(self, height: int, width: int) -> ImageFrame:
        """Place an image of this size, in pixels, in the square."""
        longest = max(height, width)
        side = self.size or longest
        content = (self._scaled(height, longest, side), self._scaled(width, longest, side))
        return ImageFrame.centred((height, width), content, (side, side))

    def _scaled(self, edge: int, longest: int, side: int) -> int:
        scaled = int(edge / longest * side) if self.scale_first else edge * side // longest
        return max(scaled, self.least_px)  # at least one pixel of a picture of any shape

    def padded(self, image: Image.Image) -> tuple[Image.Image, ImageFrame]:
        """Return the square as an RGB image, and its frame."""
        image = to_rgb(image)
        frame = self.frame(image.height, image.width)
        canvas = Image.new("RGB", frame.padded_size[::-1], self.colour)
        canvas.paste(resize(image, frame.content_size), (frame.left, frame.top))
        return canvas, frame

    def __call__(self, image: Image.Image) -> PreparedImage:
        """Prepare an image: "pixel_values" float32 (3, T, T)."""
        canvas, frame = self.padded(image)
        values = normalise(pixels(canvas), self.mean, self.std)
        return PreparedImage({"pixel_values": values}, frame)


@dataclass(frozen=True)
class HybridSquare:
    """The two squares of DeepSeek-VL 7B: a large one for its SAM tower, and the same, shrunk as a
    tensor, for its SigLIP tower.

    Args:
        large: makes the large square; its mean and std are those of the SAM tower.
        size: side of the small square; mean, std: of the SigLIP tower, None for none.
    """

    large: PadToSquare
    size: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    def __call__(self, image: Image.Image) -> PreparedImage:
        """Prepare an image: float32 "pixel_values" (3, size, size), "high_res_pixel_values"
        (3, T, T)."""
        canvas, frame = self.large.padded(image)
        return PreparedImage(self.views(pixels(canvas)), frame)

    def views(self, square: Tensor) -> dict[str, Tensor]:
        """Make both inputs of the large square (3, T, T) with values in 0..255."""
        fine = normalise(square, self.large.mean, self.large.std)
        scaled = square[None].float() / 255
        (small,) = F.interpolate(
            scaled, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False
        )
        coarse = small if self.mean is None else normalise(small * 255, self.mean, self.std)
        return {"pixel_values": coarse, "high_res_pixel_values": fine}


@dataclass(frozen=True)
class AnyResolutionTiles:
    """The tiles of LLaVA-NeXT: the image squashed to one tile, then its best-fitting grid of tiles,
    padded with black.

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

    def __post_init__(self) -> None:
        whole = all(not (h % self.size or w % self.size) for h, w in self.grid_pinpoints)
        if not self.grid_pinpoints or not whole:
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
        """Place an image of this size, in pixels, in the joint frame of its tiles."""
        tall, wide = best_canvas((height, width), self.grid_pinpoints)
        by_height, by_width = tall / height, wide / width
        if by_width < by_height:
            content = (min(math.ceil(height * by_width), tall), wide)
        else:
            content = (tall, min(math.ceil(width * by_height), wide))
        return ImageFrame.centred((height, width), content, (tall, wide))

    def __call__(self, image: Image.Image) -> PreparedImage:
        """Prepare an image: float32 (1 + rows * columns, 3, T, T), squashed image first."""
        image = to_rgb(image)
        frame = self.frame(image.height, image.width)
        canvas = Image.new("RGB", frame.padded_size[::-1])
        canvas.paste(resize(image, frame.content_size), (frame.left, frame.top))

        rows, columns = (edge // self.size for edge in frame.padded_size)
        grid = pixels(canvas).unflatten(1, (rows, self.size)).unflatten(3, (columns, self.size))
        tiles = grid.permute(1, 3, 0, 2, 4).flatten(0, 1)  # (3, r, T, c, T) -> (r * c, 3, T, T)

        whole = pixels(resize(image, (self.size, self.size)))
        values = normalise(torch.cat([whole[None], tiles]), self.mean, self.std)
        return PreparedImage({"pixel_values": values}, frame)


def tile_inputs(images: Sequence[PreparedImage]) -> dict[str, Tensor]:
    """Make the model inputs of images in tiles: pixels (B, tiles, 3, T, T), padded, and sizes."""
    values = [image.pixel_values for image in images]
    return {
        "pixel_values": torch.nn.utils.rnn.pad_sequence(values, batch_first=True),
        "image_sizes": torch.tensor([image.frame.image_size for image in images]),
    }


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize to (height, width) by Pillow's bicubic filter."""
    if (image.height, image.width) == size:
        return image
    return image.resize(size[::-1], BICUBIC)


def normalise(values: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> Tensor:
    """Scale pixels (..., 3, H, W) in 0..255 to float32 in [0, 1], then standardise them.

    Args:
        mean, std: three numbers each, of pixels in [0, 1]; None leaves the pixels in [0, 1].
    """
    scaled = values.float() / 255
    if mean is None or std is None:
        return scaled
    centre = torch.tensor(mean, dtype=torch.float32).view(3, 1, 1)
    spread = torch.tensor(std, dtype=torch.float32).view(3, 1, 1)
    return (scaled - centre) / spread
