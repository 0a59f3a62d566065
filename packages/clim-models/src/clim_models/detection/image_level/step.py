"""One training step on images without boxes: their regions, and the losses of tags and captions.

Letters: B images, T_i tiles, G_i groups and R_i = T_i + G_i regions of image i, T and R of all
images, K classes, C embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from clim_models.detection.image_level.captions import CaptionLoss, CaptionRules, Captions
from clim_models.detection.image_level.regions import (
    TileRules,
    draw_groups,
    largest_proposals,
    side_of,
    with_group_boxes,
    with_tiles,
)
from clim_models.detection.image_level.tags import TagLoss, TagRules, any_member


@dataclass(frozen=True)
class CaptionedImage:
    """An image without boxes: a picture, or a mosaic of pictures.

    Attributes:
        boxes: (T_i, 4) XYXY in pixels of the network input, the pictures row by row.
        images: (T_i,) int64, number of each picture; a picture has the same in every step.
        tags: bool (T_i, K).
        captions: of the pictures; a picture may have none.
        tag_groups, caption_groups: bool (G_i, T_i), or None to draw them.
    """

    boxes: Tensor
    images: Tensor
    tags: Tensor
    captions: Captions
    tag_groups: Tensor | None = None
    caption_groups: Tensor | None = None

    def __post_init__(self) -> None:
        side_of(len(self.boxes))
        if not len(self.boxes) == len(self.images) == len(self.tags):
            raise ValueError(
                f"{len(self.boxes)} boxes, {len(self.images)} numbers and {len(self.tags)} rows of "
                "tags; pass one of each per picture"
            )


@dataclass(frozen=True)
class Regions:
    """Regions of a batch.

    Attributes:
        boxes: (R_i, 4) of each image.
        members: bool (R, T), the pictures that each region covers.
    """

    boxes: list[Tensor]
    members: Tensor


@dataclass(frozen=True)
class ImageLevelRules:
    """Losses of images without boxes.

    Attributes:
        tags: None drops the loss of tags.
        captions: None drops the loss of captions.
        tiles: rules for the proposals that may represent a picture.
        groups: number of groups of each mosaic.

    Raises:
        ValueError: neither tags nor captions.
    """

    tags: TagRules | None = field(default_factory=TagRules)
    captions: CaptionRules | None = field(default_factory=CaptionRules)
    tiles: TileRules = field(default_factory=TileRules)
    groups: int = 4

    def __post_init__(self) -> None:
        if self.tags is None and self.captions is None:
            raise ValueError("neither tags nor captions: pass TagRules() or CaptionRules()")


class ImageLevelLosses(nn.Module):
    """Regions of images without boxes, and their losses.

    Args:
        embed_dim: C.
        rules: see `ImageLevelRules`.
    """

    def __init__(self, embed_dim: int, rules: ImageLevelRules):
        super().__init__()
        self.rules = rules
        self.tags = None if rules.tags is None else TagLoss(rules.tags)
        captions = rules.captions
        self.captions = None if captions is None else CaptionLoss(embed_dim, captions)

    def tag_regions(
        self,
        batch: Sequence[CaptionedImage],
        proposals: Sequence[Tensor],
        scores: Sequence[Tensor] | None,
    ) -> Regions:
        """Choose the largest proposal of each picture, and lay groups around them.

        Args:
            batch: B images.
            proposals: (N_i, 4) of each.
            scores: (N_i,) of each; None takes all proposals of a picture.
        """
        boxes, groups = [], []
        for i, image in enumerate(batch):
            score = None if scores is None else scores[i]
            largest = largest_proposals(image.boxes, proposals[i], score, self.rules.tiles)
            boxes.append(largest)
            groups.append(self._groups(image, image.tag_groups))
        return _with_groups(boxes, groups)

    def caption_regions(self, batch: Sequence[CaptionedImage]) -> Regions:
        """Take each picture as a region, and lay groups around them."""
        groups = [self._groups(image, image.caption_groups) for image in batch]
        return _with_groups([image.boxes for image in batch], groups)

    def _groups(self, image: CaptionedImage, given: Tensor | None) -> Tensor:
        side = side_of(len(image.boxes))
        if given is None:
            given = draw_groups(side, self.rules.groups if side > 1 else 0)
        return given.to(image.boxes.device)

    def tag_loss(
        self,
        features: Tensor,
        regions: Regions,
        batch: Sequence[CaptionedImage],
        embeddings: Tensor,
    ) -> Tensor:
        """Compute the loss of tags.

        Args:
            features: (R, C) of `tag_regions`.
            regions: of `tag_regions`.
            batch: the images.
            embeddings: (K, C) unit rows.
        """
        assert self.tags is not None
        tags = torch.cat([image.tags for image in batch])
        found: Tensor = self.tags(features, embeddings, any_member(regions.members, tags))
        return found

    def caption_loss(
        self,
        features: Tensor,
        regions: Regions,
        batch: Sequence[CaptionedImage],
        *,
        remember: bool = True,
    ) -> Tensor:
        """Compute the loss of captions.

        Args:
            features: (R, C) of `caption_regions`.
            regions: of `caption_regions`.
            batch: the images.
            remember: whether the captions enter the queue afterwards.
        """
        assert self.captions is not None
        captions = Captions(
            torch.cat([image.captions.features for image in batch]),
            torch.cat([image.captions.images for image in batch]),
        )
        numbers = torch.cat([image.images for image in batch])
        found: Tensor = self.captions(
            features, regions.members, numbers, captions, remember=remember
        )
        return found


def _with_groups(boxes: Sequence[Tensor], groups: Sequence[Tensor]) -> Regions:
    members = torch.block_diag(*[with_tiles(group).float() for group in groups]).bool()
    pairs = zip(boxes, groups, strict=True)
    return Regions([with_group_boxes(box, group) for box, group in pairs], members)
