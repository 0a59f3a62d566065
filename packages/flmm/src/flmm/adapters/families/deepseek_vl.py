"""DeepSeek-VL: one square image, 24 x 24 tokens; the 7B model sees it at two sizes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flmm.adapters.frames import PreparedImage
from flmm.adapters.layout import ImageLayout, single_grid
from flmm.adapters.preparers import HybridSquare, PadToSquare
from flmm.text.prompts import STYLES


class DeepseekVL:
    """transformers' "deepseek_vl" (deepseek-community/deepseek-vl-1.3b-chat)."""

    grids = 1
    style = STYLES["deepseek"]
    system = (
        "You are a helpful language and vision assistant. You are able to understand the visual "
        "content that the user provides, and assist the user with a variety of tasks using "
        "natural language.\n\n"
    )
    spaced = False

    def __init__(self, config: Any, image_processor: Any):
        self.image_token_id = config.image_token_id
        self.side = config.vision_config.image_size // config.vision_config.patch_size
        self.prepare = self._preparer(image_processor)

    def _preparer(self, processor: Any) -> Any:
        return PadToSquare.of_processor(processor, scale_first=True, least_px=processor.min_size)

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        """Lay out the one padded square."""
        return single_grid(self.side, self.side, padding=prepared.frame)

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        """Stack the one or two squares of all images."""
        inputs = {}
        for name in images[0].inputs:
            inputs[name] = torch.stack([image.inputs[name] for image in images])
        return inputs


class DeepseekVLHybrid(DeepseekVL):
    """transformers' "deepseek_vl_hybrid" (deepseek-community/deepseek-vl-7b-chat).

    Its SAM and SigLIP towers see the image at two sizes.
    """

    def _preparer(self, processor: Any) -> Any:
        large = PadToSquare(
            processor.high_res_size["height"],
            tuple(processor.high_res_image_mean),
            tuple(processor.high_res_image_std),
            scale_first=True,
            least_px=processor.min_size,
            fill=tuple(processor.high_res_background_color),
        )
        mean, std = tuple(processor.image_mean), tuple(processor.image_std)
        return HybridSquare(large, processor.size["height"], mean, std)
