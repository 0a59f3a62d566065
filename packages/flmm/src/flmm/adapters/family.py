"""The interface of an LMM family."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from PIL import Image
from torch import Tensor

from flmm.adapters.frames import PreparedImage
from flmm.adapters.layout import ImageLayout
from flmm.text.prompts import PromptStyle


class Family(Protocol):
    """The part of an LMM that differs between families.

    A new family is a class with these members; see README.md, "Adding an LMM". Two more are
    optional. With `prompt_sees_itself = True` the tokens of a prompt see all of it, not only what
    is before them, and the model gets "token_type_ids" (0 in the prompt, 1 after it). `boxes` is
    the `flmm.text.boxes.BoxFormat` that the LMM was trained for. See also `ProcessorReader`,
    `TokenizerAdjuster` and `PixelFrame`.
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
    """Token id of an image, or of each of its tokens, in a prompt."""

    def prepare(self, image: Image.Image) -> PreparedImage:
        """Make the model's pixels, without a batch axis, and the frame of the image in them."""
        ...

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        """Return the number of tokens of the image, and their layout on it."""
        ...

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        """Make the arguments of the model's forward, except ids and mask.

        Images are in the order of their tokens in `input_ids` (B, S).
        """
        ...


@runtime_checkable
class ProcessorReader(Protocol):
    """A family that needs to know options of its own processor, which `load_lmm` then reads."""

    def read_processor(self, options: Mapping[str, Any]) -> None:
        """Take the options of the model's processor_config.json."""
        ...


@runtime_checkable
class TokenizerAdjuster(Protocol):
    """A family whose own processor changes the tokenizer, as `FrozenLMM` then does, too."""

    def adjust_tokenizer(self, tokenizer: Any) -> None:
        """Change which tokens the tokenizer puts before a text."""
        ...


@runtime_checkable
class PixelFrame(Protocol):
    """A family whose LMMs write boxes in pixels of the image as they see it."""

    def seen_size(self, prepared: PreparedImage) -> tuple[int, int]:
        """Return the (height, width) of that image."""
        ...
