"""The interface of an LMM family."""

from collections.abc import Sequence
from typing import Protocol

from PIL import Image
from torch import Tensor

from flmm.adapters.frames import PreparedImage
from flmm.adapters.layout import ImageLayout
from flmm.text.prompts import PromptStyle


class Family(Protocol):
    """What differs between LMMs.

    A new family is a class with these members; see README.md, "Adding an LMM".
    """

    grids: int
    """Views of an image among its tokens: 1, or 2 where a coarse view goes before the tiles."""

    style: PromptStyle
    """Its chat format."""

    system: str
    """Text before the prompt of a conversation; prompts of training have none."""

    spaced: bool
    """Whether its tokenizer needs a space before each segment of a text (`flmm.text.tokens`)."""

    image_token_id: int
    """Token id that stands for an image, or for each of its tokens, in a prompt."""

    def prepare(self, image: Image.Image) -> PreparedImage:
        """Make the model's pixels, without a batch axis, and say where the image lies in them."""
        ...

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        """Say how many tokens the image becomes, and how they lie on it."""
        ...

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        """Make the arguments of the model's forward, except ids and mask.

        Images are in the order of their tokens in `input_ids` (B, S).
        """
        ...
