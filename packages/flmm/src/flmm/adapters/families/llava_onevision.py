"""LLaVA-OneVision: like LLaVA-NeXT, on more grids; a joint grid that is too large is shrunk."""

import math
from collections.abc import Sequence
from typing import Any

from clim_data.pixels import to_rgb
from PIL import Image
from torch import Tensor

from flmm.adapters.frames import ImageFrame, PreparedImage
from flmm.adapters.layout import ImageLayout, unpadded_size, with_newlines
from flmm.adapters.preparers import tile_inputs
from flmm.text.boxes import LLAVA_TILED
from flmm.text.prompts import PromptStyle
from flmm.transformers_compat import best_canvas


class LlavaOnevision:
    """transformers' "llava_onevision" (llava-hf/llava-onevision-qwen2-7b-ov-hf)."""

    grids = 2
    style = PromptStyle("<|im_start|>user {input}<|im_end|><|im_start|>assistant\n")
    system = ""
    boxes = LLAVA_TILED
    spaced = True

    def __init__(self, config: Any, image_processor: Any):
        self.image_token_id = config.image_token_id
        self.side = config.vision_config.image_size // config.vision_config.patch_size
        self.pinpoints = config.image_grid_pinpoints
        self.tile = config.vision_config.image_size
        self.most_tiles = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
        self.processor = image_processor

    def prepare(self, image: Image.Image) -> PreparedImage:
        """Make the pixels with the model's own processor."""
        image = to_rgb(image)
        made = self.processor(images=[image], return_tensors="pt")
        inputs = {"pixel_values": made["pixel_values"][0]}
        return PreparedImage(inputs, ImageFrame.whole((image.height, image.width)))

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        """Lay out the squashed image and the joint grid, shrunk by the model's own rule."""
        size = prepared.frame.image_size
        height, width = best_canvas(size, self.pinpoints)
        tiles = (height // self.tile * self.side, width // self.tile * self.side)
        rows, columns = unpadded_size(tiles, size)

        ratio = math.sqrt(rows * columns / (self.most_tiles * self.side**2))
        if ratio > 1.1:
            rows, columns = int(rows // ratio), int(columns // ratio)
        return with_newlines((self.side, self.side), (rows, columns))

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        """Pad the tiles of all images to one tensor."""
        return tile_inputs(images)
