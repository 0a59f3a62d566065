"""The refiner that changes nothing: coarse masks at the size of the image, without SAM."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from flmm.refiners.embedding import ImageEmbedding, Size
from flmm.refiners.encoder import ImageEncoder, embedded
from flmm.refiners.refiner import NO_REFINER, NOTHING, RefinedMasks
from flmm.refiners.square import ResizedImage, Square

NO_SQUARE = Square(0)
# Longest edge of the grid that boxes and points are drawn on.
FINEST = 1024
# A point becomes a square of this share of the image's longer edge.
POINT_SHARE = 0.05


class SizeEncoder(ImageEncoder):
    """An image encoder that only notes the size of an image."""

    def __init__(self) -> None:
        super().__init__(NO_SQUARE)

    def embed(self, images: Sequence[Image.Image | ResizedImage]) -> list[ImageEmbedding]:
        """Return embeddings without features."""
        return [ImageEmbedding(torch.zeros(0), image.size) for image in self.resized(images)]


class CoarseOnly(nn.Module):
    """Coarse masks, enlarged to the image: `--refiner none`. It has no weights and no download.

    Its outlines are as coarse as the LMM's tokens. Its predicted IoU is the expected one under the
    probabilities of the mask: the sum of the probabilities inside, by the number of pixels inside
    and the sum of the probabilities outside.
    """

    kind = NO_REFINER
    square = NO_SQUARE
    text_width = 0

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder: ImageEncoder | None = SizeEncoder()

    def embed(self, images: Sequence[Image.Image | ResizedImage]) -> list[ImageEmbedding]:
        """Note the sizes of images."""
        return self.frozen_encoder().embed(images)

    def refine(
        self,
        images: Sequence[Image.Image | ImageEmbedding],
        coarse: Sequence[Tensor],
        text: Sequence[Sequence[Tensor]] | None = None,
    ) -> list[RefinedMasks]:
        """Enlarge the logits (n, h, w) of each image bilinearly to its size; words are not read.

        Raises:
            ValueError: there is not one (n, h, w) tensor for each image.
        """
        check_coarse(images, coarse)
        found = []
        for image, masks in zip(embedded(self.image_encoder, images), coarse, strict=True):
            enlarged = F.interpolate(
                masks.float()[:, None], size=image.size, mode="bilinear", align_corners=False
            )[:, 0]
            found.append(RefinedMasks(enlarged, expected_iou(enlarged)))
        return found

    def refine_places(
        self,
        images: Sequence[Image.Image | ImageEmbedding],
        places: Sequence[Sequence[Tensor]],
    ) -> list[RefinedMasks]:
        """Draw the boxes and points of each phrase as one mask, a point as a small square.

        Raises:
            ValueError: as `check_places`.
        """
        check_places(images, places)
        known = embedded(self.image_encoder, images)
        drawn = []
        for image, of_phrases in zip(known, places, strict=True):
            drawn.append(drawn_places(of_phrases, image.size))
        return self.refine(known, drawn)

    def forward(
        self,
        images: Sequence[Image.Image | ImageEmbedding],
        coarse: Sequence[Tensor],
        text: Sequence[Sequence[Tensor]] | None = None,
    ) -> list[Tensor]:
        """Return the masks of `refine` alone."""
        return [found.masks for found in self.refine(images, coarse, text)]

    def frozen_encoder(self) -> ImageEncoder:
        """Return the encoder that notes sizes."""
        return self.image_encoder or SizeEncoder()

    def without_encoder(self) -> "CoarseOnly":
        """Return a refiner like this one; nothing of it trains."""
        return CoarseOnly()

    def blank_embedding(self, device: torch.device) -> ImageEmbedding:
        """Return the embedding of no image, 64 x 64 pixels."""
        return ImageEmbedding(torch.zeros(0, device=device), (64, 64))

    def facts(self) -> dict[str, Any]:
        """Return nothing: it has no options."""
        return {}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Do nothing: it keeps no activations."""


def check_coarse(images: Sequence[Image.Image | ImageEmbedding], coarse: Sequence[Tensor]) -> None:
    """Raise ValueError unless there is one (n, h, w) tensor of coarse logits for each image."""
    if (
        not isinstance(images, Sequence)
        or isinstance(coarse, Tensor)
        or not 0 < len(images) == len(coarse)
    ):
        raise ValueError("pass lists with one image and one (n, h, w) tensor of coarse logits each")
    for i, masks in enumerate(coarse):
        if masks.ndim != 3:
            raise ValueError(f"coarse[{i}] has shape {tuple(masks.shape)}; pass (n, h, w) logits")


def check_places(
    images: Sequence[Image.Image | ImageEmbedding], places: Sequence[Sequence[Tensor]]
) -> None:
    """Raise ValueError unless there is one list of (k, 4) boxes or (k, 2) points for each image."""
    if not isinstance(images, Sequence) or not 0 < len(images) == len(places):
        raise ValueError("pass lists with one image and one list of boxes or points each")
    for i, of_phrases in enumerate(places):
        for found in of_phrases:
            if found.ndim != 2 or found.shape[1] not in (2, 4):
                raise ValueError(
                    f"places[{i}] has the shape {tuple(found.shape)}; pass (k, 4) boxes or (k, 2) "
                    "points of each phrase"
                )


def drawn_places(places: Sequence[Tensor], size: Size) -> Tensor:
    """Draw boxes or points of each phrase as a mask: logits (N, p, q), positive inside.

    The grid is the image's own, or a coarser one of `FINEST` cells along the longer edge. Every
    box has one cell at least.

    Args:
        places: of N phrases (k, 4) or (k, 2), in pixels of the image.
        size: (H, W) of the image.
    """
    scale = min(1.0, FINEST / max(size))
    rows, columns = (max(1, round(edge * scale)) for edge in size)
    y = (torch.arange(rows) + 0.5) * size[0] / rows
    x = (torch.arange(columns) + 0.5) * size[1] / columns
    half = max(POINT_SHARE * max(size) / 2, 1)
    logits = torch.full((len(places), rows, columns), NOTHING)
    for mask, found in zip(logits, places, strict=True):
        boxes = found.cpu()
        if boxes.shape[1] == 2:
            boxes = torch.cat([boxes - half, boxes + half], dim=1)
        for left, top, right, bottom in boxes.tolist():
            down, across = _within(y, top, bottom), _within(x, left, right)
            mask[down[:, None] & across] = -NOTHING
    device = places[0].device if places else "cpu"
    return logits.to(device)


def _within(centres: Tensor, low: float, high: float) -> Tensor:
    """Say which cells have their centre in a span; the nearest one where it lies between two."""
    inside = (centres >= low) & (centres <= high)
    if not inside.any():
        inside[(centres - (low + high) / 2).abs().argmin()] = True
    return inside


@torch.no_grad()
def expected_iou(logits: Tensor) -> Tensor:
    """Return the IoU (n,) of masks (n, H, W) at half probability with what their own probabilities
    expect; 0 for an empty mask."""
    inside = logits > 0
    probabilities = logits.sigmoid()
    shared = (probabilities * inside).sum((1, 2))
    union = torch.where(inside, 1.0, probabilities).sum((1, 2))
    return shared / union.clamp(min=1e-6)
