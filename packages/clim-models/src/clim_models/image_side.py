"""The image side of a model by itself, for a teacher that sees no text."""

import copy

from torch import Tensor, nn

from clim_models.region_model import RegionModel


class ImageSide(nn.Module):
    """What is left of an open_clip model without its text tower, under the same names."""

    def __init__(self, visual: nn.Module, logit_scale: nn.Parameter):
        super().__init__()
        self.visual, self.logit_scale = visual, logit_scale

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """Raises ValueError: there is nothing to encode texts with."""
        raise ValueError(
            "this copy of a model has no text tower: encode texts with the model that it was "
            "copied from"
        )


def copy_image_side(model: RegionModel) -> RegionModel:
    """A RegionModel with copies of all weights but those of the text tower, in the state that
    `model` is in.

    It gives the features of images and regions that `model` gives; `encode_text` raises ValueError.
    """
    copied: dict[int, object] = {}
    clip = ImageSide(copy.deepcopy(model.visual, copied), copy.deepcopy(model.logit_scale, copied))
    copied[id(model.clip)] = clip.train(
        model.clip.training
    )  # in place of a copy; `model.tower` finds its parts
    return copy.deepcopy(model, copied)
