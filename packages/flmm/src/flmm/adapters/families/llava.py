"""LLaVA-1.5: one square image, mean-coloured padding, one grid of tokens."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flmm.adapters.families.mistral3 import Mistral3
from flmm.adapters.family import Family
from flmm.adapters.frames import PreparedImage
from flmm.adapters.layout import ImageLayout, single_grid
from flmm.adapters.preparers import PadToSquare
from flmm.text.boxes import LLAVA
from flmm.text.prompts import STYLES


def llava(config: Any, image_processor: Any) -> Family:
    """Choose the family of a model of type "llava" by its vision tower."""
    if config.vision_config.model_type == "pixtral":
        return Mistral3(config, image_processor)
    return Llava(config, image_processor)


class Llava:
    """transformers' "llava" with a square image (llava-hf/llava-1.5-7b-hf and similar ones).

    The published checkpoints saw whole images scaled to fit, not the centre crops of the model's
    own processor.

    Raises:
        ValueError: the vision tower has no fixed square grid.
    """

    grids = 1
    style = STYLES["vicuna"]
    system = ""
    boxes = LLAVA
    spaced = False

    def __init__(self, config: Any, image_processor: Any):
        vision = config.vision_config
        if not isinstance(getattr(vision, "image_size", None), int):
            raise ValueError(
                f"the vision tower {vision.model_type!r} of this LLaVA has no fixed square grid of "
                "tokens; use one with a CLIP or SigLIP tower, or add a family of its own "
                "(README.md, 'Adding an LMM')"
            )
        self.image_token_id = config.image_token_id
        self.side = vision.image_size // vision.patch_size
        self.prepare = PadToSquare.of_processor(image_processor)

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        """Lay out the one padded square."""
        return single_grid(self.side, self.side, padding=prepared.frame)

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        """Stack the squares of all images."""
        return {"pixel_values": torch.stack([image.pixel_values for image in images])}
