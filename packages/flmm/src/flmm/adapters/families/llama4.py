"""Llama 4: tiles of the padded image with marks between them, then the squashed whole image."""

from collections.abc import Sequence
from typing import Any

import torch
from clim_data.pixels import to_rgb
from PIL import Image
from torch import Tensor

from flmm.adapters.frames import ImageFrame, PreparedImage
from flmm.adapters.layout import ImageLayout, grid_of_tokens, tiled_grid
from flmm.text.prompts import PromptStyle
from flmm.transformers_compat import padded_canvas

PATCH = "<|patch|>"


class Llama4:
    """transformers' "llama4" (meta-llama/Llama-4-Scout-17B-16E-Instruct and others).

    The padding of the tiles is cut off their grid, so that both grids cover just the image. An
    image of one tile has no further view; its only grid then stands for both.
    """

    grids = 2
    style = PromptStyle(
        "<|header_start|>user<|header_end|>\n\n{input}<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\n",
        image_token=PATCH,
        separator="",
    )
    system = ""
    spaced = True

    def __init__(self, config: Any, image_processor: Any):
        vision = config.vision_config
        self.image_token_id = config.image_token_id
        self.tile = vision.image_size
        self.side = round(vision.image_size // vision.patch_size * vision.pixel_shuffle_ratio)
        self.processor = image_processor

    def prepare(self, image: Image.Image) -> PreparedImage:
        """Make the pixels with the model's own processor."""
        image = to_rgb(image)
        made = self.processor(images=[image], return_tensors="pt")
        size = (image.height, image.width)
        content, canvas = padded_canvas(
            size,
            self.tile,
            most=self.processor.max_patches,
            largest=self.processor.resize_to_max_canvas,
        )
        frame = ImageFrame(size, content, canvas)
        return PreparedImage({"pixel_values": made["pixel_values"]}, frame)

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        """Lay out the whole image and the tiles, whose tokens come first."""
        each = self.side * self.side
        rows, columns = (edge // self.tile for edge in prepared.frame.padded_size)
        last = f"<|image|>{PATCH * each}<|image_end|>"
        if rows * columns == 1:
            grid = prepared.frame.crop(grid_of_tokens(0, self.side, self.side))
            return ImageLayout((grid, grid), each, text=f"<|image_start|>{last}")

        row = "<|tile_x_separator|>".join([PATCH * each] * columns) + "<|tile_y_separator|>"
        fine = prepared.frame.crop(tiled_grid(0, tiles=(rows, columns), side=self.side))
        whole = grid_of_tokens(rows * columns * each, self.side, self.side)
        text = f"<|image_start|>{row * rows}{last}"
        return ImageLayout((whole, fine), (rows * columns + 1) * each, text=text)

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        """Put the tiles of all images one after another."""
        return {"pixel_values": torch.cat([image.pixel_values for image in images])}
