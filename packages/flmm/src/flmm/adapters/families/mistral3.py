"""Mistral 3 and Pixtral: the image at its own shape, a mark after each row of tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from clim_data.pixels import to_rgb
from PIL import Image
from torch import Tensor

from flmm.adapters.frames import ImageFrame, PreparedImage
from flmm.adapters.layout import ImageLayout, grid_of_tokens
from flmm.text.prompts import PromptStyle


class Mistral3:
    """transformers' "mistral3" (mistralai/Mistral-Small-3.1-24B-Instruct-2503 and others), and
    "llava" with a Pixtral tower (mistral-community/pixtral-12b), which merges no patches."""

    grids = 1
    style = PromptStyle("[INST]{input}[/INST]", image_token="[IMG]", separator="")
    system = ""
    spaced = True

    def __init__(self, config: Any, image_processor: Any):
        self.image_token_id = config.image_token_id
        merged = getattr(config, "spatial_merge_size", 1)
        self.cell = config.vision_config.patch_size * merged
        self.processor = image_processor

    def prepare(self, image: Image.Image) -> PreparedImage:
        """Make the pixels with the model's own processor."""
        image = to_rgb(image)
        # The image is made of whole tokens, each of several patches.
        made = self.processor(images=[image], patch_size=self.cell, return_tensors="pt")
        size = torch.tensor(made["pixel_values"][0].shape[-2:])
        inputs = {"pixel_values": made["pixel_values"][0], "image_sizes": size}
        return PreparedImage(inputs, ImageFrame.whole((image.height, image.width)))

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        """Lay out the rows, which marks divide."""
        height, width = prepared.pixel_values.shape[-2:]
        rows, columns = height // self.cell, width // self.cell
        text = ("[IMG]" * columns + "[IMG_BREAK]") * rows
        text = text.removesuffix("[IMG_BREAK]") + "[IMG_END]"
        return ImageLayout((grid_of_tokens(0, rows, columns),), rows * columns, text=text)

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        """Pad the images to one size, and return the size of each."""
        sizes = torch.stack([image.inputs["image_sizes"] for image in images])
        height, width = sizes.amax(0).tolist()
        pixels = torch.zeros(len(images), 3, height, width)
        for canvas, image in zip(pixels, images):
            tall, wide = image.pixel_values.shape[-2:]
            canvas[:, :tall, :wide] = image.pixel_values
        return {"pixel_values": pixels, "image_sizes": sizes}
