"""The interface of a refiner: coarse masks, boxes or points in, fine masks out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from flmm.refiners.embedding import ImageEmbedding
from flmm.refiners.encoder import ImageEncoder
from flmm.refiners.square import ResizedImage, Square

NO_REFINER = "none"
"""The name that stands for `CoarseOnly` where a SAM is asked for."""

NOTHING = -20.0
"""The logit of a mask with nothing in it."""


@dataclass(frozen=True)
class RefinedMasks:
    """Refined masks of the n phrases of an image.

    masks: float32 logits (n, H, W) at the image's size; positive is inside. ious: float32 (n,) in
    [0, 1] without gradients, the IoU that the refiner expects of each mask.
    """

    masks: Tensor
    ious: Tensor


class Refiner(Protocol):
    """Refines coarse masks. An image is embedded once; its phrases are the batch axis.

    `SamRefiner` and `CoarseOnly` are two. A new one is a class with these members.
    """

    @property
    def square(self) -> Square:
        """The input of its image encoder."""
        ...

    @property
    def text_width(self) -> int:
        """E: channels of a projected word; 0 for a refiner that reads no words."""
        ...

    def embed(self, images: Sequence[Image.Image | ResizedImage]) -> list[ImageEmbedding]:
        """Embed all images in one pass."""
        ...

    def refine(
        self,
        images: Sequence[Image.Image | ImageEmbedding],
        coarse: Sequence[Tensor],
        text: Sequence[Sequence[Tensor]] | None = None,
    ) -> list[RefinedMasks]:
        """Refine the masks of B images.

        Args:
            images: pictures, or their embeddings.
            coarse: per image (n, h, w) coarse logits of the whole image.
            text: per image n tensors (t, E), the projected words of each phrase.
        """
        ...

    def refine_places(
        self,
        images: Sequence[Image.Image | ImageEmbedding],
        places: Sequence[Sequence[Tensor]],
    ) -> list[RefinedMasks]:
        """Make the masks of things whose places are known; no words and no coarse masks.

        Args:
            images: B pictures, or their embeddings.
            places: per image and phrase its k boxes (k, 4), XYXY, or its k points (k, 2), XY, in
                pixels of the image. The mask of a phrase is the union of the masks of its places,
                and its IoU their mean; both are empty where k is 0.
        """
        ...

    def __call__(
        self,
        images: Sequence[Image.Image | ImageEmbedding],
        coarse: Sequence[Tensor],
        text: Sequence[Sequence[Tensor]] | None = None,
    ) -> list[Tensor]:
        """Return the masks of `refine` alone."""
        ...


class TrainableRefiner(Refiner, Protocol):
    """A refiner that heads are trained with, as `GroundedLMM` takes it."""

    @property
    def kind(self) -> str:
        """The `model_type` that transformers gives it, or "none"."""
        ...

    @property
    def image_encoder(self) -> ImageEncoder | None:
        """The part that looks at images; None in a refiner of embeddings."""
        ...

    def frozen_encoder(self) -> ImageEncoder:
        """Return the image encoder. Raises ValueError when this refiner has none."""
        ...

    def without_encoder(self) -> "TrainableRefiner":
        """Return the part that trains: a refiner of embeddings on the same weights."""
        ...

    def blank_embedding(self, device: torch.device) -> ImageEmbedding:
        """Return the embedding of no image: zeros of the right shapes."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return the options that a file of heads must name to build it again."""
        ...

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass."""
        ...
