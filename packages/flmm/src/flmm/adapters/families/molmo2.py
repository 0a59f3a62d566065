"""Molmo 2: the whole image, then a finer grid of crops that overlap, a mark after each row."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from clim_data.pixels import to_rgb
from PIL import Image
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from flmm.adapters.frames import ImageFrame, PreparedImage
from flmm.adapters.layout import ImageLayout, grid_of_tokens
from flmm.text.boxes import MOLMO
from flmm.text.prompts import STYLES, PromptStyle

PATCH, ROW_END = "<im_patch>", "<im_col>"


class Molmo2:
    """transformers' "molmo2" (allenai/Molmo2-8B and others)."""

    grids = 2
    style = PromptStyle(
        STYLES["chatml"].template,
        image_token=PATCH,
        separator="",
    )
    system = ""
    boxes = MOLMO
    spaced = True

    def __init__(self, config: Any, image_processor: Any):
        self.image_token_id = config.image_patch_id
        self.starts = torch.tensor(
            [config.image_start_token_id, config.low_res_image_start_token_id]
        )
        self.end: int = config.image_end_token_id
        self.processor = image_processor

        # As in the released models; the default of the processor's class may differ.
        self.options = {"image_use_col_tokens": True, "use_single_crop_col_tokens": False}

    def read_processor(self, options: Mapping[str, Any]) -> None:
        """Read which rows have a mark after them, and the beginning of the whole image."""
        self.options |= options

    def adjust_tokenizer(self, tokenizer: Any) -> None:
        """Put the first token before a text, which its tokenizer leaves to the processor."""
        first = tokenizer.bos_token or tokenizer.eos_token
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{first}:0 $A:0",
            pair=f"{first}:0 $A:0 $B:1",
            special_tokens=[(first, tokenizer.convert_tokens_to_ids(first))],
        )

    def prepare(self, image: Image.Image) -> PreparedImage:
        """Make the pixels with the model's own processor."""
        image = to_rgb(image)
        made = self.processor(images=[image], return_tensors="pt")
        inputs = {name: made[name] for name in ("pixel_values", "image_token_pooling")}
        inputs |= {name: made[name][0] for name in ("image_grids", "image_num_crops")}
        return PreparedImage(inputs, ImageFrame.whole((image.height, image.width)))

    def layout(self, prepared: PreparedImage) -> ImageLayout:
        """Lay out the whole image and the finer grid."""
        low_rows, low_columns, rows, columns = prepared.inputs["image_grids"].tolist()
        marked = self.options["image_use_col_tokens"]
        low_marked = self.options["use_single_crop_col_tokens"]
        if low_marked is None:
            low_marked = marked
        low = (PATCH * low_columns + ROW_END * low_marked) * low_rows
        high = (PATCH * columns + ROW_END * marked) * rows
        own_start = self.options.get("use_single_crop_start_token", True)
        start = "<low_res_im_start>" if own_start else "<im_start>"
        whole = grid_of_tokens(0, low_rows, low_columns)
        fine = grid_of_tokens(whole.numel(), rows, columns)
        return ImageLayout(
            (whole, fine),
            whole.numel() + fine.numel(),
            text=f"{start}{low}<im_end><im_start>{high}<im_end>",
        )

    def model_inputs(self, images: Sequence[PreparedImage], input_ids: Tensor) -> dict[str, Tensor]:
        """Put the crops of all images one after another, and say which tokens are of images."""
        pooling, patches = [], 0
        for image in images:  # numbers of patches, -1 for none, that go on from image to image
            own = image.inputs["image_token_pooling"]
            pooling.append(torch.where(own < 0, own, own + patches))
            patches += image.pixel_values.shape[0] * image.pixel_values.shape[1]
        return {
            "pixel_values": torch.cat([image.pixel_values for image in images]),
            "image_token_pooling": torch.cat(pooling),
            "image_grids": torch.stack([image.inputs["image_grids"] for image in images]),
            "image_num_crops": torch.stack([image.inputs["image_num_crops"] for image in images]),
            # All tokens of an image see each other, marks too; without their kinds they silently do
            # not.
            "mm_token_type_ids": self._of_images(input_ids).long(),
        }

    def _of_images(self, ids: Tensor) -> Tensor:
        """Mark the ids (B, S) between a start and an end of an image, and these two themselves."""
        opened = torch.isin(ids, self.starts).cumsum(1)
        closed = (ids == self.end).cumsum(1)
        return (opened > closed) | (ids == self.end)
