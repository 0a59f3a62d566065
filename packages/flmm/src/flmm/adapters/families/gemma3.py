"""Gemma 3: the image squashed to one square, 16 x 16 tokens that see each other."""

from collections.abc import Sequence
from typing import Any

import torch
from clim_data.pixels import to_rgb
from PIL import Image
from torch import Tensor

from flmm.adapters.frames import ImageFrame, PreparedImage
from flmm.adapters.layout import ImageLayout, single_grid
from flmm.text.boxes import GEMMA
from flmm.text.prompts import STYLES, PromptStyle


class Gemma3:
    """transformers' "gemma3" (google/gemma-3-4b-it and larger), without pan and scan."""

    grids = 1
    style = PromptStyle(
        STYLES["gemma"].template,
        image_token="\n\n<start_of_image><image_soft_token><end_of_image>\n\n",
        separator="",
    )
    system = ""
    boxes = GEMMA
    spaced = True

    def __init__(self, config: Any, image_processor: Any):
        self.image_token_id = config.image_token_id
        self.side = round(config.mm_tokens_per_image**0.5)
        self.processor = image_processor

    def prepare(self, image: Image.Image) -> PreparedImage:
        """Make the pixels with the model's own processor."""
        image = to_rgb(image)
        made = self.processor(images=[image], do_pan_and_scan=False, return_tensors="pt")
        inputs = {"pixel_values": made["pixel_values"][0]}
        return PreparedImage(inputs, ImageFrame.whole((image.height, image.width)))

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        """Lay out the one square."""
        return single_grid(self.side, self.side)

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        """Stack the squares of all images, and mark the tokens of images."""
        return {
            "pixel_values": torch.stack([image.pixel_values for image in images]),
            # Without the kinds of tokens the model silently hides later image tokens from earlier
            # ones.
            "token_type_ids": (input_ids == self.image_token_id).long(),
        }
