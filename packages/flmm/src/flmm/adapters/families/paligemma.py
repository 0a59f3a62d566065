"""PaliGemma: the image squashed to one square, its tokens before the text; the prompt sees all of
itself."""

from collections.abc import Sequence
from typing import Any

import torch
from clim_data.pixels import to_rgb
from PIL import Image
from torch import Tensor

from flmm.adapters.frames import ImageFrame, PreparedImage
from flmm.adapters.layout import ImageLayout, single_grid
from flmm.text.boxes import PALIGEMMA
from flmm.text.prompts import PromptStyle


class PaliGemma:
    """transformers' "paligemma" (google/paligemma2-3b-mix-448 and others, also of version 1)."""

    grids = 1
    style = PromptStyle("{input}\n", image_token="<image>", separator="<bos>")
    system = ""
    boxes = PALIGEMMA
    spaced = True
    prompt_sees_itself = True

    def __init__(self, config: Any, image_processor: Any):
        self.image_token_id = config.image_token_id
        self.side = config.vision_config.image_size // config.vision_config.patch_size
        self.processor = image_processor

    def adjust_tokenizer(self, tokenizer: Any) -> None:
        """Put no token before a text: the first one stands after the image."""
        tokenizer.add_bos_token = False
        tokenizer.add_eos_token = False

    def prepare(self, image: Image.Image) -> PreparedImage:
        """Make the pixels with the model's own processor."""
        image = to_rgb(image)
        made = self.processor(images=[image], return_tensors="pt")
        inputs = {"pixel_values": made["pixel_values"][0]}
        return PreparedImage(inputs, ImageFrame.whole((image.height, image.width)))

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        """Lay out the one square."""
        return single_grid(self.side, self.side)

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        """Stack the squares of all images."""
        return {"pixel_values": torch.stack([image.pixel_values for image in images])}
