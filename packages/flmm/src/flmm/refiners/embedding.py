"""The embedding of one image that a refiner works on."""

from dataclasses import dataclass

from torch import Tensor

Size = tuple[int, int]


@dataclass(frozen=True)
class ImageEmbedding:
    """What SAM's image encoder made of an image: features (D, h, w), and the image's (H, W) in
    pixels."""

    features: Tensor
    size: Size
