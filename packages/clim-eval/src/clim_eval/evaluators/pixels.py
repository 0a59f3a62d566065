"""Images of a batch through a model, and the ids of items."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def encode_pixels(model: nn.Module, images: Sequence[Tensor]) -> Tensor:
    """uint8 (3, H, W) images of one size -> (B, C) float32 unit rows on the model's device."""
    return model.encode_image(model.normalize_pixels(torch.stack(list(images)))).float()


def image_id(item: Sequence) -> Any:
    if len(item) != 3:
        raise ValueError(
            f"a loader's item has {len(item)} fields: yield (image, label, image_id), or pass the "
            "dataset"
        )
    return item[2]
