"""Mini-Gemini: one square image with padding in the mean colour, seen by CLIP and a ConvNeXt; in HD
also in tiles."""

from collections.abc import Sequence
from typing import Any

import torch
from clim_data.pixels import pixels
from PIL import Image
from torch import Tensor

from flmm.adapters.frames import PreparedImage
from flmm.adapters.layout import ImageLayout, grid_of_tokens, single_grid, tiled_grid
from flmm.adapters.preparers import PadToSquare, normalise, resize
from flmm.text.boxes import LLAVA
from flmm.text.prompts import STYLES


class MiniGemini:
    """MGM-2B ("mgm_gemma"), MGM-7B and MGM-7B-HD ("mgm") of YanweiLi."""

    system = ""
    boxes = LLAVA
    spaced = False

    def __init__(self, config: Any, image_processor: Any):
        self.style = STYLES["gemma" if config.model_type == "mgm_gemma" else "vicuna"]
        self.image_token_id = config.image_token_id
        self.sizes = config.vision_config
        self.heads: int = config.text_config.num_attention_heads
        self.grids = 2 if self.sizes.whole else 1
        self.square = PadToSquare(
            None, tuple(image_processor.image_mean), tuple(image_processor.image_std)
        )

    def prepare(self, image: Image.Image) -> PreparedImage:
        """Make the large square: "pixel_values" float32 (3, A, A); CLIP's images are made from
        it."""
        canvas, frame = self.square.padded(image)
        side = self.sizes.aux_size
        values = pixels(resize(canvas, (side, side)))
        return PreparedImage(
            {"pixel_values": normalise(values, self.square.mean, self.square.std)}, frame
        )

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        """Lay out the padded square; in HD the whole one, then its tiles."""
        side, tiles = self.sizes.side, self.sizes.tiles
        if not self.sizes.whole:
            return single_grid(side, side, padding=prepared.frame)
        whole = grid_of_tokens(0, side, side)
        fine = tiled_grid(side * side, tiles=(tiles, tiles), side=side)
        return ImageLayout(
            (whole, fine),
            whole.numel() + fine.numel(),
            prepared.frame,
            heads=self.heads,
            merge_last=True,
        )

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        """Stack the squares of all images."""
        return {"pixel_values": torch.stack([image.pixel_values for image in images])}
