"""Aya Vision: tiles in rows, each after a mark with its number, then the whole image."""

from collections.abc import Sequence
from typing import Any

import torch
from clim_data.pixels import to_rgb
from PIL import Image
from torch import Tensor

from flmm.adapters.frames import ImageFrame, PreparedImage
from flmm.adapters.layout import ImageLayout, grid_of_tokens, tiled_grid
from flmm.text.prompts import PromptStyle
from flmm.transformers_compat import best_tiles

PATCH = "<|IMG_PATCH|>"


class AyaVision:
    """transformers' "aya_vision" (CohereLabs/aya-vision-8b and larger).

    An image of one tile has no further view; its only grid then stands for both.
    """

    grids = 2
    style = PromptStyle(
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{input}<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        image_token=PATCH,
        separator="",
    )
    system = ""
    spaced = True

    def __init__(self, config: Any, image_processor: Any):
        self.image_token_id = config.image_token_id
        vision = config.vision_config
        self.tile = vision.image_size
        self.side = vision.image_size // vision.patch_size // config.downsample_factor
        self.processor = image_processor

    def prepare(self, image: Image.Image) -> PreparedImage:
        """Make the pixels with the model's own processor."""
        image = to_rgb(image)
        made = self.processor(images=[image], crop_to_patches=True, return_tensors="pt")
        inputs = {"pixel_values": made["pixel_values"]}
        return PreparedImage(inputs, ImageFrame.whole((image.height, image.width)))

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        """Lay out the whole image and the tiles, whose tokens come first."""
        count, each = len(prepared.pixel_values), self.side * self.side
        text = "<|START_OF_IMG|>"
        for number in range(1, count):
            text += f"TILE_{number}{PATCH * each}"
        text += f"TILE_GLOBAL{PATCH * each}<|END_OF_IMG|>"
        if count == 1:
            grid = grid_of_tokens(0, self.side, self.side)
            return ImageLayout((grid, grid), each, text=text)

        tiles = best_tiles(
            prepared.frame.image_size,
            self.tile,
            least=self.processor.min_patches,
            most=self.processor.max_patches,
        )
        fine = tiled_grid(0, tiles=tiles, side=self.side)
        whole = grid_of_tokens((count - 1) * each, self.side, self.side)
        return ImageLayout((whole, fine), count * each, text=text)

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        """Put the tiles of all images one after another."""
        return {"pixel_values": torch.cat([image.pixel_values for image in images])}
