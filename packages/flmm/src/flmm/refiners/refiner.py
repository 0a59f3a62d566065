"""The interface of a refiner: coarse masks in, fine masks out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image
from torch import Tensor

from flmm.refiners.embedding import ImageEmbedding


@dataclass(frozen=True)
class RefinedMasks:
    """Refined masks of the n phrases of an image.

    masks: float32 logits (n, H, W) at the image's size; positive is inside. ious: (n,) in [0, 1],
    the IoU that the refiner expects of each mask.
    """

    masks: Tensor
    ious: Tensor


class Refiner(Protocol):
    """Refines coarse masks. An image is embedded once; its phrases are the batch axis.

    `SamRefiner` is one. A new one is a class with these members.
    """

    edge: int
    """Side of its square input in pixels."""

    @property
    def text_width(self) -> int:
        """E: channels of a projected word."""
        ...

    def embed(self, images: Sequence[Image.Image]) -> list[ImageEmbedding]:
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

        Returns:
            Masks of each image.
        """
        ...

    def __call__(
        self,
        images: Sequence[Image.Image | ImageEmbedding],
        coarse: Sequence[Tensor],
        text: Sequence[Sequence[Tensor]] | None = None,
    ) -> list[Tensor]:
        """Return the logits of `refine` alone."""
        ...
