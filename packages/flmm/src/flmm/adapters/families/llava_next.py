"""LLaVA-NeXT: the squashed image, then its tiles with a newline token after each joint row."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from flmm.adapters.frames import PreparedImage
from flmm.adapters.layout import ImageLayout, unpadded_size, with_newlines
from flmm.adapters.preparers import AnyResolutionTiles, tile_inputs
from flmm.text.boxes import LLAVA_TILED
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
    boxes = LLAVA_TILED

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
        """Lay out the squashed image and the tiles without their padding."""
        height, width = prepared.frame.padded_size
        tile_px = self.patch * self.side
        tiles = (height // tile_px * self.side, width // tile_px * self.side)
        fine = unpadded_size(tiles, prepared.frame.image_size)
        return with_newlines((self.side, self.side), fine)

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        """Pad the tiles of all images to one tensor."""
        return tile_inputs(images)
