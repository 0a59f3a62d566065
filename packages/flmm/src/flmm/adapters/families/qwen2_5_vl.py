"""Qwen2.5-VL: the image at (nearly) its own size, one token for 2 x 2 patches, nothing padded."""

from collections.abc import Sequence
from typing import Any

import torch
from clim_data.pixels import to_rgb
from PIL import Image
from torch import Tensor

from flmm.adapters.frames import ImageFrame, PreparedImage
from flmm.adapters.layout import ImageLayout, single_grid
from flmm.text.boxes import QWEN_PIXELS
from flmm.text.prompts import PromptStyle


class Qwen25VL:
    """transformers' "qwen2_5_vl" (Qwen/Qwen2.5-VL-3B-Instruct and larger)."""

    grids = 1
    style = PromptStyle(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n{input}<|im_end|>\n"
        "<|im_start|>assistant\n",
        image_token="<|vision_start|><|image_pad|><|vision_end|>",
        separator="",
    )
    system = ""
    boxes = QWEN_PIXELS
    spaced = True

    def __init__(self, config: Any, image_processor: Any):
        self.image_token_id = config.image_token_id
        self.merge = config.vision_config.spatial_merge_size
        self.patch_px: int = config.vision_config.patch_size
        self.processor = image_processor

    def prepare(self, image: Image.Image) -> PreparedImage:
        """Make the pixels with the model's own processor."""
        image = to_rgb(image)
        made = self.processor(images=[image], return_tensors="pt")
        inputs = {"pixel_values": made["pixel_values"], "image_grid_thw": made["image_grid_thw"][0]}
        return PreparedImage(inputs, ImageFrame.whole((image.height, image.width)))

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        """Lay out the merged patches."""
        _, rows, columns = prepared.inputs["image_grid_thw"].tolist()
        return single_grid(rows // self.merge, columns // self.merge)

    def seen_size(self, prepared: PreparedImage) -> tuple[int, int]:
        """Return the (height, width) of the resized image in pixels."""
        _, rows, columns = prepared.inputs["image_grid_thw"].tolist()
        return rows * self.patch_px, columns * self.patch_px

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        """Put the patches of all images one after another, with the grid of each."""
        return {
            "pixel_values": torch.cat([image.pixel_values for image in images]),
            "image_grid_thw": torch.stack([image.inputs["image_grid_thw"] for image in images]),
            # Without the kinds of tokens the model falls back to positions without rows.
            "mm_token_type_ids": (input_ids == self.image_token_id).int(),
        }
