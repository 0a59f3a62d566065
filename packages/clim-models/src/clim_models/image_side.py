"""The image side of a model by itself, for a teacher that sees no text."""

import copy
from typing import Any

from torch import Tensor, nn

from clim_models.region_model import RegionModel


class ImageSide(nn.Module):
    """An open_clip model without its text tower; the rest has the same names."""

    def __init__(self, visual: nn.Module, logit_scale: nn.Parameter):
        super().__init__()
        self.visual = visual
        self.logit_scale = logit_scale

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """Refuse: there is nothing to encode texts with.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "this copy of a model has no text tower: encode texts with the model that it was "
            "copied from"
        )


def copy_image_side(model: RegionModel) -> RegionModel:
    """Copy a model without its text tower, in the state that it is in.

    The copy shares no weight with the model and gives the same features of images and regions. Its
    `encode_text` raises ValueError.
    """
    # `deepcopy` looks here first. With our `clip` in place of a copy of the whole one, the rest of
    # the model, its tower included, finds the parts that are copied already.
    copied: dict[int, Any] = {}
    visual = copy.deepcopy(model.visual, copied)
    clip = ImageSide(visual, copy.deepcopy(model.logit_scale, copied))
    copied[id(model.clip)] = clip.train(model.clip.training)
    return copy.deepcopy(model, copied)
