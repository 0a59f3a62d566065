"""Gemma 4: the image in its own shape, one token for 3 x 3 patches."""

from collections.abc import Sequence
from typing import Any

import torch
from clim_data.pixels import to_rgb
from PIL import Image
from torch import Tensor

from flmm.adapters.frames import ImageFrame, PreparedImage
from flmm.adapters.layout import ImageLayout, single_grid
from flmm.text.boxes import GEMMA
from flmm.text.prompts import PromptStyle


class Gemma4:
    """transformers' "gemma4" (google/gemma-4-E4B-it and larger)."""

    grids = 1
    style = PromptStyle(
        "<|turn>user\n{input}<turn|>\n<|turn>model\n",
        image_token="<|image><|image|><image|>",
        separator="",
    )
    system = ""
    boxes = GEMMA
    spaced = True

    def __init__(self, config: Any, image_processor: Any):
        self.image_token_id = config.image_token_id
        self.pooling = config.vision_config.pooling_kernel_size
        self.processor = image_processor

    def prepare(self, image: Image.Image) -> PreparedImage:
        """Make the patches with the model's own processor, and the places (x, y) of each."""
        image = to_rgb(image)
        made = self.processor(images=[image], return_tensors="pt")
        inputs = {name: made[name][0] for name in ("pixel_values", "image_position_ids")}
        return PreparedImage(inputs, ImageFrame.whole((image.height, image.width)))

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        """Lay out the pooled patches; patches of padding have places of -1."""
        columns, rows = (prepared.inputs["image_position_ids"].amax(0) + 1).tolist()
        return single_grid(rows // self.pooling, columns // self.pooling)

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        """Stack the patches of all images, and mark the tokens of images."""
        places = [image.inputs["image_position_ids"] for image in images]
        return {
            "pixel_values": torch.stack([image.pixel_values for image in images]),
            "image_position_ids": torch.stack(places),
            # Without the kinds of tokens some layers silently hide later image tokens from earlier
            # ones.
            "mm_token_type_ids": (input_ids == self.image_token_id).long(),
        }
