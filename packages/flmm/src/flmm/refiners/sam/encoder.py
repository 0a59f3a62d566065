"""SAM's image encoder, with its own normalisation."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from flmm.refiners.embedding import ImageEmbedding
from flmm.refiners.encoder import ImageEncoder
from flmm.refiners.square import ResizedImage, Square


class SamImageEncoder(ImageEncoder):
    """SAM's vision encoder, on images in its square.

    Args:
        vision: transformers' `SamVisionEncoder`.
        pixels: mean and standard deviation (red, green, blue) of its training images, in 0..255.
    """

    def __init__(self, vision: nn.Module, square: Square, pixels: tuple[tuple[float, ...], ...]):
        super().__init__(square)
        self.vision = vision
        self.pixel_mean, self.pixel_std = pixels

    def forward(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Encode normalised pixels (B, 3, edge, edge) -> features (B, D, h, w), and details."""
        return self.vision(pixels).last_hidden_state, ()

    @torch.no_grad()
    def embed(self, images: Sequence[Image.Image | ResizedImage]) -> list[ImageEmbedding]:
        """Embed all images in one pass, without gradients."""
        weight = next(self.vision.parameters())
        device = weight.device
        resized = self.resized(images)
        edge = self.square.edge
        batch = torch.zeros(len(resized), 3, edge, edge, device=device)
        mean = torch.tensor(self.pixel_mean, device=device)[:, None, None]
        std = torch.tensor(self.pixel_std, device=device)[:, None, None]
        for padded, image in zip(batch, resized, strict=True):
            pixels = image.pixels.to(device)  # bytes: a quarter of what floats would be to copy
            padded[:, : pixels.shape[1], : pixels.shape[2]] = (pixels - mean) / std

        features, details = self(batch.to(weight.dtype))
        made = []
        for i, image in enumerate(resized):
            made.append(ImageEmbedding(features[i], image.size, tuple(d[i] for d in details)))
        return made
