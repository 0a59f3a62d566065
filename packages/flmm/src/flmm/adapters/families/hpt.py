"""HPT-Air and HPT-Air 1.5: one square image, padding in the mean colour, one grid of tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flmm.adapters.frames import PreparedImage
from flmm.adapters.layout import ImageLayout, single_grid
from flmm.adapters.preparers import PadToSquare
from flmm.text.prompts import STYLES


class Hpt:
    """HPT-Air (HyperGAI/HPT: a CLIP tower) and HPT-Air 1.5 (a SigLIP tower on Llama 3).

    The published heads saw whole images scaled to fit, where the authors squash or crop them.
    """

    grids = 1
    system = ""
    spaced = False

    def __init__(self, config: Any, image_processor: Any):
        vision = config.vision_config
        self.style = STYLES["chatml" if vision.model_type == "clip_vision_model" else "llama3"]
        self.image_token_id = config.image_token_id
        self.side = vision.image_size // vision.patch_size
        self.prepare = PadToSquare(
            vision.image_size, tuple(image_processor.image_mean), tuple(image_processor.image_std)
        )

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        """Lay out the one padded square."""
        return single_grid(self.side, self.side, padding=prepared.frame)

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        """Stack the squares of all images."""
        return {"pixel_values": torch.stack([image.pixel_values for image in images])}
