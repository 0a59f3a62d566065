"""The interface of a refiner: coarse masks in, fine masks out."""

from collections.abc import Sequence
from typing import Protocol

from PIL import Image
from torch import Tensor

from flmm.refiners.embedding import ImageEmbedding


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

    def __call__(
        self,
        images: Sequence[Image.Image | ImageEmbedding],
        coarse: Sequence[Tensor],
        text: Sequence[Sequence[Tensor]] | None = None,
    ) -> list[Tensor]:
        """Refine the masks of B images.

        Args:
            images: pictures, or their embeddings.
            coarse: per image (n, h, w) coarse logits of the whole image.
            text: per image n tensors (t, E), the projected words of each phrase.

        Returns:
            Per image float32 logits (n, H, W) at its size; positive is inside.
        """
        ...
