"""LLaVA-NeXT: the squashed image and its tiles, a newline token after each row of the tiles' joint
grid."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flmm.adapters.frames import PreparedImage
from flmm.adapters.layout import ImageLayout, unpadded_size, with_newlines
from flmm.adapters.preparers import AnyResolutionTiles
from flmm.text.prompts import STYLES

STYLE_OF_TEXT_MODEL = {"llama": "vicuna", "mistral": "mistral", "qwen2": "chatml"}


class LlavaNext:
    """transformers' "llava_next" (llava-hf/llava-v1.6-vicuna-7b-hf, -mistral-7b-hf).

    The model itself cuts the padding of the tiles off, so that both grids cover just the image.

    Raises:
        ValueError: a language model whose chat format is unknown.
    """

    grids = 2
    system = ""

    def __init__(self, config: Any, image_processor: Any):
        text = config.text_config.model_type
        if text not in STYLE_OF_TEXT_MODEL:
            raise ValueError(
                f"no chat format for a LLaVA-NeXT on {text!r}; known: "
                f"{', '.join(STYLE_OF_TEXT_MODEL)}"
            )
        self.style = STYLES[STYLE_OF_TEXT_MODEL[text]]
        self.spaced = text == "qwen2"
        self.image_token_id = config.image_token_id
        self.patch = config.vision_config.patch_size
        self.side = config.vision_config.image_size // self.patch
        self.prepare = AnyResolutionTiles.of_processor(image_processor)

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        tiles = tuple(
            edge // (self.patch * self.side) * self.side for edge in prepared.frame.padded_size
        )
        return with_newlines(
            (self.side, self.side), unpadded_size(tiles, prepared.frame.image_size)
        )

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        return {
            "pixel_values": torch.nn.utils.rnn.pad_sequence(
                [i.pixel_values for i in images], batch_first=True
            ),
            "image_sizes": torch.tensor([image.frame.image_size for image in images]),
        }
