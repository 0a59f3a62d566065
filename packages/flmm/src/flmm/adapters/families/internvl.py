"""InternVL: the image squashed onto a grid of tiles, then the whole image as a thumbnail where
there are several."""

from collections.abc import Sequence
from typing import Any

import torch
from clim_data.pixels import to_rgb
from PIL import Image
from torch import Tensor

from flmm.adapters.frames import ImageFrame, PreparedImage
from flmm.adapters.layout import ImageLayout, grid_of_tokens, tiled_grid
from flmm.text.prompts import PromptStyle


class InternVL:
    """transformers' "internvl" (OpenGVLab/InternVL3-1B-hf and larger).

    An image of one tile has no thumbnail; its only grid then stands for both views.
    """

    grids = 2
    style = PromptStyle(
        "<|im_start|>user\n{input}<|im_end|>\n<|im_start|>assistant\n",
        image_token="<img><IMG_CONTEXT></img>",
    )
    system = ""
    spaced = True

    def __init__(self, config: Any, image_processor: Any):
        self.image_token_id = config.image_token_id
        self.tile = config.vision_config.image_size[0]
        self.side = int(self.tile // config.vision_config.patch_size[0] * config.downsample_ratio)
        self.processor = image_processor

    def prepare(self, image: Image.Image) -> PreparedImage:
        image = to_rgb(image)
        made = self.processor(images=[image], crop_to_patches=True, return_tensors="pt")
        return PreparedImage(
            {"pixel_values": made["pixel_values"]}, ImageFrame.whole((image.height, image.width))
        )

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        count = len(prepared.pixel_values)
        if count == 1:
            grid = grid_of_tokens(0, self.side, self.side)
            return ImageLayout((grid, grid), grid.numel())
        tiles = self._tiles(prepared.frame.image_size)
        thumbnail = grid_of_tokens((count - 1) * self.side**2, self.side, self.side)
        return ImageLayout(
            (thumbnail, tiled_grid(0, tiles=tiles, side=self.side)), count * self.side**2
        )

    def _tiles(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of tiles, by the rule of the model's own processor."""
        from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

        columns, rows = get_optimal_tiled_canvas(
            image_size,
            (self.tile, self.tile),
            self.processor.min_patches,
            self.processor.max_patches,
        )
        return rows, columns

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        return {"pixel_values": torch.cat([image.pixel_values for image in images])}
