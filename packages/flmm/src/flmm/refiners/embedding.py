"""The embedding of one image, for a refiner."""

from dataclasses import dataclass

import torch
from torch import Tensor

Size = tuple[int, int]


@dataclass(frozen=True)
class ImageEmbedding:
    """The result of a refiner's image encoder for one image.

    features: (D, h, w). size: the image's (H, W) in pixels. details: further maps of the image that
    some refiners read, finer or of an earlier layer; each refiner says which.
    """

    features: Tensor
    size: Size
    details: tuple[Tensor, ...] = ()

    def to(self, device: torch.device | str) -> "ImageEmbedding":
        """Return it on a device."""
        details = tuple(detail.to(device) for detail in self.details)
        return ImageEmbedding(self.features.to(device), self.size, details)
