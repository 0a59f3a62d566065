"""A frozen CLIP image tower as the backbone of a detector.

Letters: B images, D channels of a map, C embedding, h w positions, R boxes of all images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clim_models.detection.boxes.roi import align_map
from clim_models.detection.features.pyramid import SCALES, ViTPyramid
from clim_models.region_model import RegionModel
from clim_models.towers.modified_resnet import ResNetTower


@dataclass(frozen=True)
class BackboneMaps:
    """The maps of a batch of images from a tower or a whole backbone.

    Attributes:
        pyramid: four maps (B, D_i, h_i, w_i), finest first; of a ViT tower all have one size.
        clip: the map that `region_features` reads, or None in training.
    """

    pyramid: list[Tensor]
    clip: Tensor | None


class Backbone(Protocol):
    """The interface of a backbone for detectors.

    Attributes:
        model: the frozen RegionModel, which also embeds vocabularies.
        channels: D_i of the four maps.
        strides: pixels per position of the four maps.
        embed_dim: C.
    """

    model: RegionModel
    channels: tuple[int, ...]
    strides: tuple[float, ...]
    embed_dim: int

    def __call__(self, images: Tensor, *, with_clip: bool) -> BackboneMaps: ...

    def run_tower(self, images: Tensor, *, with_clip: bool) -> BackboneMaps:
        """Return the maps of the frozen tower, which stay the same during a training."""
        ...

    def finish(self, tower: BackboneMaps) -> BackboneMaps:
        """Return the result of a call, from the maps of the tower."""
        ...

    def region_features(self, clip_map: Tensor, rois: Tensor) -> Tensor:
        """Return CLIP's own feature of each box.

        Args:
            clip_map: `BackboneMaps.clip` of the B images.
            rois: (R, 5), the number of the image in the batch, then XYXY in pixels.

        Returns:
            (R, C).
        """
        ...


class FrozenBackbone(nn.Module):
    """Base of both backbones: the tower has no gradient and stays in evaluation mode."""

    def __init__(self, model: RegionModel, blocks: Sequence[int]):
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.blocks = list(blocks)
        self.embed_dim = model.embed_dim
        self._measured = self._measure()

    def train(self, mode: bool = True) -> "FrozenBackbone":
        """Set the training mode of everything but the tower."""
        super().train(mode)
        self.model.eval()
        return self

    def _measure(self) -> list[tuple[int, float]]:
        """Measure channels and stride of each block on an image of zeros."""
        side = 4 * self.model.stride
        zeros = torch.zeros(1, 3, side, side, device=self.model.device)
        with torch.no_grad():
            maps = self.model.encode_pyramid(zeros, self.blocks)
        return [(x.shape[1], side / x.shape[2]) for x in maps]

    def forward(self, images: Tensor, *, with_clip: bool) -> BackboneMaps:
        """Compute the maps of normalised images (B, 3, H, W), with or without the CLIP map."""
        return self.finish(self.run_tower(images, with_clip=with_clip))

    @torch.no_grad()
    def run_tower(self, images: Tensor, *, with_clip: bool) -> BackboneMaps:
        """Compute the maps of the named blocks, which stay the same during a training.

        Args:
            images: (B, 3, H, W), normalised.
            with_clip: whether the CLIP map is wanted, too.
        """
        if with_clip:
            return BackboneMaps(*self.model.encode_pyramid_and_dense(images, self.blocks))
        return BackboneMaps(self.model.encode_pyramid(images, self.blocks), None)

    def finish(self, tower: BackboneMaps) -> BackboneMaps:
        """Return the result of a call, from the maps of `run_tower`."""
        return tower


class ViTBackbone(FrozenBackbone):
    """Four blocks of a ViT, brought to strides of 1/4, 1/2, 1 and 2 patches.

    The only trainable part is `pyramid`. CLIP's feature of a box is RoIAlign 1x1 of the unit-length
    dense map.

    Args:
        model: a RegionModel with any ViT; it is frozen.
        blocks: four numbers of blocks, see `RegionModel.encode_pyramid`.

    Raises:
        ValueError: another number of blocks, blocks the tower does not have, or no ViT.
    """

    def __init__(self, model: RegionModel, blocks: Sequence[int]):
        if len(blocks) != len(SCALES):
            raise ValueError(f"blocks={list(blocks)}; name four blocks, finest map first")
        super().__init__(model, blocks)
        widths = {width for width, _ in self._measured}
        if len(widths) > 1 or any(stride != model.stride for _, stride in self._measured):
            raise ValueError(
                f"the maps of this {model.tower_kind} tower have several sizes: it is no ViT; "
                "use StageBackbone"
            )
        (width,) = widths
        self.pyramid = ViTPyramid(width)
        self.channels: tuple[int, ...] = (width,) * len(SCALES)
        self.strides: tuple[float, ...] = tuple(model.stride * scale for scale in SCALES)

    def finish(self, tower: BackboneMaps) -> BackboneMaps:
        """Bring the maps of the tower to four strides."""
        return BackboneMaps(self.pyramid(tower.pyramid), tower.clip)

    def region_features(self, clip_map: Tensor, rois: Tensor) -> Tensor:
        """Return CLIP's own feature of each box, RoIAlign 1x1 of the dense map.

        Args:
            clip_map: (B, C, h, w) unit-length features.
            rois: (R, 5), the number of the image in the batch, then XYXY in pixels.

        Returns:
            (R, C), means of unit vectors and so not of unit length themselves. A box without area
            gives zeros.
        """
        return align_map(clip_map, rois, 1, self.model.stride).flatten(1)


class StageBackbone(FrozenBackbone):
    """Stages of a convolutional tower as they are: nothing of it trains.

    CLIP's feature of a box is, for a ModifiedResNet, RoIAlign of the last stage to the grid of the
    attention pool, then the pool (F-VLM, arXiv 2209.15639); for other CNNs RoIAlign 1x1 of the
    dense map.

    Args:
        model: a RegionModel with a convolutional tower; it is frozen.
        blocks: four numbers of blocks; None is the last four.

    Raises:
        ValueError: another number of blocks, or blocks the tower does not have.
    """

    def __init__(self, model: RegionModel, blocks: Sequence[int] | None = None):
        if blocks is None:
            blocks = range(model.num_blocks - 4, model.num_blocks)
        if len(blocks) != 4:
            raise ValueError(f"blocks={list(blocks)}; name four blocks, finest map first")
        super().__init__(model, blocks)
        self.channels: tuple[int, ...] = tuple(width for width, _ in self._measured)
        self.strides: tuple[float, ...] = tuple(stride for _, stride in self._measured)
        self.pools = isinstance(model.tower, ResNetTower)

    def run_tower(self, images: Tensor, *, with_clip: bool) -> BackboneMaps:
        """Compute the maps of the named stages; the last one is the CLIP map of a ModifiedResNet.

        Args:
            images: (B, 3, H, W), normalised.
            with_clip: whether the CLIP map is wanted, too.
        """
        maps = super().run_tower(images, with_clip=with_clip and not self.pools)
        if with_clip and self.pools:
            return BackboneMaps(maps.pyramid, maps.pyramid[-1])
        return maps

    @torch.no_grad()
    def region_features(self, clip_map: Tensor, rois: Tensor) -> Tensor:
        """Return CLIP's own feature of each box.

        Args:
            clip_map: (B, D, h, w) of the last stage for a ModifiedResNet, else (B, C, h, w)
                unit-length features.
            rois: (R, 5), the number of the image in the batch, then XYXY in pixels.

        Returns:
            (R, C), of unit length for a ModifiedResNet.
        """
        tower = self.model.tower
        if not isinstance(tower, ResNetTower):
            return align_map(clip_map, rois, 1, self.model.stride).flatten(1)

        windows = align_map(clip_map, rois, tower.native_grid[0], self.model.stride)
        return F.normalize(tower.pool_maps(windows.to(self.model.dtype)).float(), dim=1)
