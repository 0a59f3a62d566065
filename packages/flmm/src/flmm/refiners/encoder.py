"""The part of a refiner that looks at images: frozen, and run once per image."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from PIL import Image
from torch import nn

from flmm.refiners.embedding import ImageEmbedding
from flmm.refiners.square import ResizedImage, Square


class ImageEncoder(nn.Module, ABC):
    """The base of image encoders. A training keeps it apart from the weights that train.

    square: its input.
    """

    def __init__(self, square: Square):
        super().__init__()
        self.square = square

    @abstractmethod
    def embed(self, images: Sequence[Image.Image | ResizedImage]) -> list[ImageEmbedding]:
        """Embed all images in one pass, without gradients."""

    def resized(self, images: Sequence[Image.Image | ResizedImage]) -> list[ResizedImage]:
        """Resize the images that are not resized yet."""
        made = []
        for image in images:
            made.append(
                image if isinstance(image, ResizedImage) else ResizedImage.of(image, self.square)
            )
        return made


def embedded(
    encoder: ImageEncoder | None, images: Sequence[Image.Image | ImageEmbedding]
) -> list[ImageEmbedding]:
    """Embed the images that are not embedded yet, in one pass.

    Raises:
        ValueError: there is an image and no encoder.
    """
    bare = [image for image in images if not isinstance(image, ImageEmbedding)]
    if bare and encoder is None:
        raise ValueError(
            "this refiner has no image encoder: pass ImageEmbeddings instead of images"
        )
    new = iter(encoder.embed(bare) if encoder is not None and bare else ())
    return [i if isinstance(i, ImageEmbedding) else next(new) for i in images]
