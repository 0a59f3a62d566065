"""What the adapter of an LMM family has to say."""

from collections.abc import Sequence
from typing import Protocol

from PIL import Image
from torch import Tensor

from flmm.adapters.frames import PreparedImage
from flmm.adapters.layout import ImageLayout
from flmm.text.prompts import PromptStyle


class Family(Protocol):
    """What differs between LMMs. A new one is a class with these members; README.md, "Adding an
    LMM"."""

    grids: int
    """Views of an image among its tokens: 1, or 2 where a coarse one goes before the tiles."""

    style: PromptStyle
    """Its chat format."""

    system: str
    """What precedes the prompt of a conversation; prompts of training have none."""

    spaced: bool
    """Its tokenizer needs a space before each segment of a text (see `flmm.text.tokens`)."""

    image_token_id: int

    def prepare(self, image: Image.Image) -> PreparedImage:
        """Pixels as the model takes them, without a batch axis, and where the image is in them."""
        ...

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        """How many tokens the image becomes, and how they lie on it."""
        ...

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        """Arguments of the model's forward beside ids and mask, for images in the order of their
        tokens in (B, S)."""
        ...
