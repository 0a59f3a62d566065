"""SmolVLM and Idefics3: tiles in rows, each after a mark of its place, then the whole image."""

from collections.abc import Sequence
from typing import Any

import torch
from clim_data.pixels import to_rgb
from PIL import Image
from torch import Tensor

from flmm.adapters.frames import ImageFrame, PreparedImage
from flmm.adapters.layout import ImageLayout, grid_of_tokens, tiled_grid
from flmm.text.prompts import PromptStyle


class SmolVLM:
    """transformers' "smolvlm" (HuggingFaceTB/SmolVLM2-2.2B-Instruct and others) and "idefics3"
    (HuggingFaceM4/Idefics3-8B-Llama3).

    An image of one tile has no further view; its only grid then stands for both. The model drops
    tiles whose pixels are all zero.
    """

    grids = 2
    system = ""
    spaced = True

    def __init__(self, config: Any, image_processor: Any):
        opening = "<|im_start|>" if config.model_type == "smolvlm" else ""
        self.style = PromptStyle(
            opening + "User:{input}<end_of_utterance>\nAssistant:", separator=""
        )
        self.image_token_id = config.image_token_id
        vision = config.vision_config
        self.side = vision.image_size // vision.patch_size // config.scale_factor
        self.processor = image_processor

    def prepare(self, image: Image.Image) -> PreparedImage:
        """Make the pixels with the model's own processor: the tiles, and their rows and columns."""
        image = to_rgb(image)
        made = self.processor(images=[image], return_row_col_info=True, return_tensors="pt")
        inputs = {
            "pixel_values": made["pixel_values"][0],
            "pixel_attention_mask": made["pixel_attention_mask"][0],
            "tiles": torch.tensor([made["rows"][0][0], made["cols"][0][0]]),
        }
        return PreparedImage(inputs, ImageFrame.whole((image.height, image.width)))

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        """Lay out the whole image and the tiles, whose tokens come first."""
        rows, columns = prepared.inputs["tiles"].tolist()
        each = self.side * self.side
        image = "<image>" * each
        whole_text = f"<fake_token_around_image><global-img>{image}<fake_token_around_image>"
        if rows * columns == 0:
            grid = grid_of_tokens(0, self.side, self.side)
            return ImageLayout((grid, grid), each, text=whole_text)

        text = ""
        for row in range(1, rows + 1):
            for column in range(1, columns + 1):
                text += f"<fake_token_around_image><row_{row}_col_{column}>{image}"
            text += "\n"
        count = rows * columns
        fine = tiled_grid(0, tiles=(rows, columns), side=self.side)
        whole = grid_of_tokens(count * each, self.side, self.side)
        return ImageLayout((whole, fine), (count + 1) * each, text=f"{text}\n{whole_text}")

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        """Pad the tiles of all images to one tensor, with tiles of zeros."""
        inputs = {}
        for name in ("pixel_values", "pixel_attention_mask"):
            values = [image.inputs[name] for image in images]
            inputs[name] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
        return inputs
