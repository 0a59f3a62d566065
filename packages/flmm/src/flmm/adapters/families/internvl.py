"""InternVL: the image squashed onto a grid of tiles, then a thumbnail if there are several."""

from collections.abc import Sequence
from typing import Any

import torch
from clim_data.pixels import to_rgb
from PIL import Image
from torch import Tensor

from flmm.adapters.frames import ImageFrame, PreparedImage
from flmm.adapters.layout import ImageLayout, grid_of_tokens, tiled_grid
from flmm.text.boxes import INTERNVL
from flmm.text.prompts import STYLES, PromptStyle
from flmm.transformers_compat import best_tiles


class InternVL:
    """transformers' "internvl" (OpenGVLab/InternVL3-1B-hf and larger).

    An image of one tile has no thumbnail; its only grid then stands for both views.
    """

    grids = 2
    style = PromptStyle(
        STYLES["chatml"].template,
        image_token="<img><IMG_CONTEXT></img>",
    )
    system = ""
    boxes = INTERNVL
    spaced = True

    def __init__(self, config: Any, image_processor: Any):
        self.image_token_id = config.image_token_id
        self.tile = config.vision_config.image_size[0]
        self.side = int(self.tile // config.vision_config.patch_size[0] * config.downsample_ratio)
        self.processor = image_processor

    def prepare(self, image: Image.Image) -> PreparedImage:
        """Make the pixels with the model's own processor."""
        image = to_rgb(image)
        made = self.processor(images=[image], crop_to_patches=True, return_tensors="pt")
        inputs = {"pixel_values": made["pixel_values"]}
        return PreparedImage(inputs, ImageFrame.whole((image.height, image.width)))

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        """Lay out the thumbnail and the tiles, whose tokens come first."""
        count = len(prepared.pixel_values)
        if count == 1:
            grid = grid_of_tokens(0, self.side, self.side)
            return ImageLayout((grid, grid), grid.numel())

        tiles = best_tiles(
            prepared.frame.image_size,
            self.tile,
            least=self.processor.min_patches,
            most=self.processor.max_patches,
        )
        fine = tiled_grid(0, tiles=tiles, side=self.side)
        thumbnail = grid_of_tokens((count - 1) * self.side**2, self.side, self.side)
        return ImageLayout((thumbnail, fine), count * self.side**2)

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        """Put the tiles of all images one after another."""
        return {"pixel_values": torch.cat([image.pixel_values for image in images])}
