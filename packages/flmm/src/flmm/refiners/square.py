"""The square input of a refiner's image encoder, and images of its size.

An image of H x W pixels (original) is resized (resized frame), and lies in the top left corner of a
padded square of `edge` pixels. SAM and SAM-HQ keep its shape, so that its longer edge fills the
square (arXiv 2304.02643). SAM 2 and its kin squash it to the whole square (arXiv 2408.00714).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flmm.refiners.embedding import Size


def resized_size(size: Size, edge: int) -> Size:
    """Return, for (H, W) in pixels, the size whose longer edge is `edge`; halves are rounded up.

    The shorter edge has one pixel at least, however thin the image is.
    """
    scale = edge / max(size)
    return max(int(size[0] * scale + 0.5), 1), max(int(size[1] * scale + 0.5), 1)


@dataclass(frozen=True)
class Square:
    """A refiner's input. edge: its side in pixels; 0 for a refiner that looks at no image.

    squashed: whether every image fills it; otherwise an image keeps its shape, and the rest is
    padding.
    """

    edge: int
    squashed: bool = False

    def frame(self, size: Size) -> Size:
        """Return the (h, w) that an image of (H, W) pixels has in the square."""
        return (self.edge, self.edge) if self.squashed else resized_size(size, self.edge)


def resize_image(image: Image.Image, square: Square) -> Tensor:
    """Resize an image of any mode to uint8 (3, h, w) RGB of the square's frame, by Pillow's
    antialiased bilinear filter."""
    height, width = square.frame((image.height, image.width))
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


@dataclass(frozen=True)
class ResizedImage:
    """The input of an image encoder, before normalisation; loading processes make it.

    pixels: uint8 (3, h, w) of `resize_image`, empty where the refiner looks at no image. size: the
    image's own (H, W).
    """

    pixels: Tensor
    size: Size

    @classmethod
    def of(cls, image: Image.Image, square: Square) -> Self:
        """Resize for a refiner whose `Refiner.square` this is."""
        size = (image.height, image.width)
        if square.edge == 0:
            return cls(torch.zeros(3, 0, 0, dtype=torch.uint8), size)
        return cls(resize_image(image, square), size)
