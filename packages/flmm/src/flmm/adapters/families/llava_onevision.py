"""LLaVA-OneVision: like LLaVA-NeXT, on more grids; a joint grid that is too large is shrunk."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from clim_data.pixels import to_rgb
from PIL import Image
from torch import Tensor

from flmm.adapters.frames import ImageFrame, PreparedImage
from flmm.adapters.layout import ImageLayout, unpadded_size, with_newlines
from flmm.text.prompts import PromptStyle


class LlavaOnevision:
    """transformers' "llava_onevision" (llava-hf/llava-onevision-qwen2-7b-ov-hf)."""

    grids = 2
    style = PromptStyle("<|im_start|>user {input}<|im_end|><|im_start|>assistant\n")
    system = ""
    spaced = True

    def __init__(self, config: Any, image_processor: Any):
        self.image_token_id = config.image_token_id
        self.side = config.vision_config.image_size // config.vision_config.patch_size
        self.pinpoints = config.image_grid_pinpoints
        self.tile = config.vision_config.image_size
        self.most_tiles = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
        self.processor = image_processor

    def prepare(self, image: Image.Image) -> PreparedImage:
        image = to_rgb(image)
        made = self.processor(images=[image], return_tensors="pt")
        return PreparedImage(
            {"pixel_values": made["pixel_values"][0]}, ImageFrame.whole((image.height, image.width))
        )

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        from transformers.image_processing_utils import select_best_resolution  # seconds to import

        size = prepared.frame.image_size
        tiles = tuple(
            edge // self.tile * self.side for edge in select_best_resolution(size, self.pinpoints)
        )
        rows, columns = unpadded_size(tiles, size)
        ratio = math.sqrt(rows * columns / (self.most_tiles * self.side**2))
        if ratio > 1.1:  # the model's own rule
            rows, columns = int(rows // ratio), int(columns // ratio)
        return with_newlines((self.side, self.side), (rows, columns))

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        return {
            "pixel_values": torch.nn.utils.rnn.pad_sequence(
                [i.pixel_values for i in images], batch_first=True
            ),
            "image_sizes": torch.tensor([image.frame.image_size for image in images]),
        }
