"""SAM's image encoder, with its own normalisation."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from flmm.refiners.embedding import ImageEmbedding
from flmm.refiners.encoder import ImageEncoder
from flmm.refiners.square import ResizedImage, Square

# Of the images SAM was trained on, in 0..255.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


class SamImageEncoder(ImageEncoder):
    """SAM's vision encoder, on images in its square.

    Args:
        vision: transformers' `SamVisionEncoder`.
    """

    def __init__(self, vision: nn.Module, square: Square):
        super().__init__(square)
        self.vision = vision

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
        mean = torch.tensor(PIXEL_MEAN, device=device)[:, None, None]
        std = torch.tensor(PIXEL_STD, device=device)[:, None, None]
        for padded, image in zip(batch, resized, strict=True):
            pixels = image.pixels.to(device)  # bytes: a quarter of what floats would be to copy
            padded[:, : pixels.shape[1], : pixels.shape[2]] = (pixels - mean) / std

        features, details = self(batch.to(weight.dtype))
        made = []
        for i, image in enumerate(resized):
            made.append(ImageEmbedding(features[i], image.size, tuple(d[i] for d in details)))
        return made
