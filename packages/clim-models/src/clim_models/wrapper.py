"""The wrapped open_clip model of a RegionModel: its parts, sizes, pixels and tokenizer.

Letters: B images, H W pixels, h w patches, N texts, T tokens.
"""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn

from clim_models.open_clip_compat import ImageStatistics, OpenClipModel, check_open_clip
from clim_models.text.tokenizer import tokenizer_for
from clim_models.towers.positions import grid_of_image
from clim_models.towers.registry import find_tower


class OpenClipWrapper(nn.Module):
    """An open_clip model with the reader of its image tower; base of `RegionModel`.

    Attributes:
        clip: the wrapped model, the owner of all weights.
        tower: the reader of its image tower.
        image_size: (H, W) of evaluation. image_mean, image_std: of RGB in [0, 1].
        name, config: open_clip's, if they are known.
        pretrained: the weights that `create_model` was asked for; "none" for random ones.
        eval_px: side of the images that the regions were trained on, if the weights say it.
        knows: the kind of images that the weights were trained on, in words, if they say it.
    """

    def __init__(
        self,
        open_clip_model: OpenClipModel,
        *,
        antialias: bool = False,
        partial_patches: str = "error",
        box_patches: str = "nearest",
    ):
        super().__init__()
        _check_option("partial_patches", partial_patches, ("error", "crop"))
        _check_option("box_patches", box_patches, ("nearest", "truncate"))
        check_open_clip(open_clip_model)
        self.clip = open_clip_model
        self.tower = find_tower(open_clip_model.visual, antialias=antialias)
        self.partial_patches = partial_patches
        self.box_patches = box_patches
        self.name: str | None = None
        self.config: dict | None = None
        self.pretrained: str | None = None
        self.eval_px: int | None = None
        self.knows: str | None = None

        statistics = ImageStatistics.of(open_clip_model)
        self.image_size = statistics.size
        self.image_mean = statistics.mean
        self.image_std = statistics.std

    @property
    def visual(self) -> nn.Module:
        """The image tower."""
        return self.clip.visual

    @property
    def logit_scale(self) -> nn.Parameter:
        """Logarithm of the inverse temperature, a scalar."""
        return self.clip.logit_scale

    @property
    def stride(self) -> int:
        """Pixels per feature position, both ways."""
        return self.tower.stride

    @property
    def tower_kind(self) -> str:
        """Kind of the image tower: "vit", "eva", "resnet", "timm_vit", "timm_cnn", or your own."""
        return self.tower.kind

    @property
    def num_blocks(self) -> int:
        """Number of blocks that `encode_pyramid` can read."""
        return self.tower.num_blocks

    @property
    def dtype(self) -> torch.dtype:
        """Data type of weights and features."""
        return self.logit_scale.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.logit_scale.device

    @cached_property
    def tokenizer(self) -> Callable[[list[str]], Tensor]:
        """Tokenizer of the model's own configuration: texts -> (N, T) token ids."""
        return tokenizer_for(self.name, self.clip)

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of the feature map of an image of `height` x `width` pixels.

        Raises:
            ValueError: an image smaller than a patch, or, with `partial_patches="error"`, a side
                that is no multiple of the stride.
        """
        exact = self.partial_patches == "error"
        return grid_of_image(height, width, self.stride, exact=exact)

    def normalize_pixels(self, pixels: Tensor) -> Tensor:
        """Turn uint8 RGB (B, 3, H, W) into the input of the tower.

        Subtracts CLIP's mean, divides by its std, and moves to the model's dtype and device.
        """
        if pixels.dtype != torch.uint8:
            raise ValueError(f"pixels have dtype {pixels.dtype}; pass uint8 values from 0 to 255")
        x = pixels.to(self.device).float()
        # Made on the CPU and copied behind what the device has to do: with `device=` Python would
        # wait for it.
        channels = torch.tensor([self.image_mean, self.image_std]).view(2, 3, 1, 1) * 255
        mean, std = channels.to(x.device, non_blocking=True)
        return ((x - mean) / std).to(self.dtype)


def _check_option(name: str, value: str, legal: tuple[str, str]) -> None:
    if value not in legal:
        raise ValueError(f"{name}={value!r}; legal values are {legal[0]!r} and {legal[1]!r}")
