"""Two-stage open-vocabulary detector on a frozen CLIP image tower.

Letters: B images, R boxes of all images, n boxes of one image, K classes, M rejected phrases,
H W pixels of the network input.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clim_models.detection.boxes.coding import move_boxes
from clim_models.detection.boxes.roi import align_pyramid, as_rois
from clim_models.detection.choice import choose_boxes, with_masks
from clim_models.detection.features.backbone import Backbone, BackboneMaps
from clim_models.detection.features.fpn import Neck
from clim_models.detection.heads import box_head as boxes_of, mask_head as masks_of
from clim_models.detection.heads.box_head import BoxHead
from clim_models.detection.heads.classes import embed_class_set
from clim_models.detection.heads.ensemble import combine_scores
from clim_models.detection.heads.losses import Divisor, box_loss, classification_loss, own_rows
from clim_models.detection.heads.mask_head import MaskHead
from clim_models.detection.heads.rpn import RPN
from clim_models.detection.heads.targets import (
    Annotations,
    SampledBoxes,
    check_annotations,
    sample_batch,
)
from clim_models.detection.heads.text_classifier import ClassSet
from clim_models.detection.images import ImageFrame, prepare_images
from clim_models.detection.rules import Detections, DetectorOptions, DetectorRules, Priorities
from clim_models.region_model import RegionModel
from clim_models.text.vocabulary import Vocabulary
from clim_models.towers.evaluation import evaluation_mode


class TwoStageDetector(nn.Module):
    """Frozen tower, neck, proposals, box head with text classifier, optional mask head.

    `build_fvit` and `build_frozen_clip` make the published ones.

    Args:
        backbone: maps of a frozen CLIP tower.
        neck: brings them to five levels.
        rpn: proposals.
        box_head: classes and boxes.
        mask_head: masks, or None.
        classes: names, embeddings and base classes.
        rules: everything else.

    Attributes:
        options: of the builder; None if no builder made the detector.

    Raises:
        ValueError: embeddings of another width than the box head's.
    """

    def __init__(
        self,
        backbone: Backbone,
        neck: Neck,
        rpn: RPN,
        box_head: BoxHead,
        *,
        mask_head: MaskHead | None,
        classes: ClassSet,
        rules: DetectorRules,
    ):
        super().__init__()
        width = box_head.classifier.background.embed_dim
        if classes.embeddings.shape[1] != width:
            raise ValueError(
                f"class embeddings have {classes.embeddings.shape[1]} channels, the detector "
                f"{width}; embed the classes with the text tower of this model"
            )
        self.backbone: Backbone = backbone
        self.neck: Neck = neck
        self.rpn = rpn
        self.box_head = box_head
        self.mask_head = mask_head
        self.classes = classes
        self.rules = rules
        self.options: DetectorOptions | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the K classes; a label is an index into them."""
        return self.classes.names

    @property
    def text(self) -> RegionModel:
        """The model whose text tower embeds classes: the tower of the detector."""
        return self.backbone.model

    def with_classes(
        self, classes: ClassSet, rules: DetectorRules | None = None
    ) -> "TwoStageDetector":
        """Return a detector with the same weights, which are shared, and other classes.

        Args:
            classes: names, embeddings and base classes.
            rules: None keeps them.
        """
        same = type(self)(
            self.backbone,
            self.neck,
            self.rpn,
            self.box_head,
            mask_head=self.mask_head,
            classes=classes.to(self.classes.embeddings.device),
            rules=rules or self.rules,
        )
        same.options = self.options
        return same.train(self.training)

    def with_vocabulary(
        self,
        vocabulary: Vocabulary | Sequence[str] | Mapping[str, Any],
        *,
        base: Iterable[str] | None = None,
        **options: Any,
    ) -> "TwoStageDetector":
        """Return a detector with the same weights, which are shared, and another vocabulary.

        Args:
            vocabulary: names, a `Vocabulary`, or what `Vocabulary.of` takes.
            base: names of the classes that the detector was trained on; their score trusts the
                detector more than CLIP. None takes those of this detector.
            options: `templates`, `read_example` and `cache` of `embed_vocabulary`.

        Raises:
            ValueError: an empty or doubled name, or a base class that is not in the vocabulary.
        """
        if base is None:
            trained = {self.names[label] for label in self.classes.base}
            base = [name for name in Vocabulary.of(vocabulary).names if name in trained]
        return self.with_classes(embed_class_set(self.text, vocabulary, base=base, **options))

    # Detection

    @torch.no_grad()
    def detect(self, pictures: Sequence[Tensor]) -> list[Detections]:
        """Find objects in pictures of any sizes.

        Args:
            pictures: uint8 RGB (3, height, width) each.

        Returns:
            One `Detections` per picture.

        Raises:
            ValueError: see `prepare_images`.
        """
        images, frames = prepare_images(pictures, self.rules.images)
        with evaluation_mode(self):
            found: list[Detections] = self(images.to(self.classes.embeddings.device), frames)
        return found

    @torch.no_grad()
    def forward(self, images: Tensor, frames: Sequence[ImageFrame]) -> list[Detections]:
        """Find objects in prepared images.

        Args:
            images: (B, 3, H, W), normalised and padded, see `prepare_images`.
            frames: sizes of each image.
        """
        return self.detect_in_maps(self.backbone.run_tower(images, with_clip=True), frames)

    @torch.no_grad()
    def detect_in_maps(self, tower: BackboneMaps, frames: Sequence[ImageFrame]) -> list[Detections]:
        """Find objects in maps of the tower, which serve several vocabularies or heads.

        Args:
            tower: of `backbone.run_tower`, with the CLIP map.
            frames: sizes of each image.
        """
        maps = self.backbone.finish(tower)
        levels = self.neck(maps.pyramid)
        limits = self.limits_of(frames, levels[0].device)
        proposals = self.rpn.propose(self.rpn(levels), limits)
        boxes = [found.boxes for found in proposals]

        scores, deltas = self.score_boxes(maps, levels, as_rois(boxes))
        moved = move_boxes(boxes, deltas, limits)
        scored = scores[:, : self.classes.num_classes].split([len(box) for box in boxes])
        found = [
            choose_boxes(frame.to_picture(box), score, self.rules.detections)
            for frame, box, score in zip(frames, moved, scored, strict=True)
        ]
        return self._with_masks(found, levels, frames)

    def score_boxes(
        self, maps: BackboneMaps, levels: Sequence[Tensor], rois: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Score boxes with detector and CLIP.

        Args:
            maps: of the backbone, with the CLIP map.
            levels: of the neck.
            rois: (R, 5), number of the image and XYXY in network pixels.

        Returns:
            Scores (R, K + M + 1), background last, and deltas (R, 4).
        """
        assert maps.clip is not None
        outputs = self.box_head(self._windows(levels, rois, boxes_of.WINDOW))
        classifier, embeddings = self.box_head.classifier, self.classes.embeddings
        logits = classifier(outputs.features, embeddings)
        own = classifier.cosines(self.backbone.region_features(maps.clip, rois), embeddings)
        scores = combine_scores(logits, own, self.classes.is_base, self.rules.ensemble)
        return scores, outputs.deltas

    def _with_masks(
        self, found: list[Detections], levels: Sequence[Tensor], frames: Sequence[ImageFrame]
    ) -> list[Detections]:
        if self.mask_head is None:
            return found
        boxes = [frame.to_network(one.boxes) for one, frame in zip(found, frames, strict=True)]
        windows = self._windows(levels, as_rois(boxes), masks_of.WINDOW)
        return with_masks(found, self.mask_head(windows), frames)

    # Training

    def losses(
        self,
        images: Tensor,
        limits: Tensor,
        truths: Sequence[Annotations],
        priorities: Priorities | None = None,
        *,
        tower: BackboneMaps | None = None,
        divisor: Divisor = own_rows,
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            images: as in `forward`.
            limits: (B, 2), height and width that proposals are clipped to, see `limits_of` and
                `prepare_views`.
            truths: annotations of each image, in network pixels.
            priorities: None draws which anchors and boxes train.
            tower: maps of the tower, where `backbone.run_tower` has computed them before; of
                `images` only the size counts then.
            divisor: what sums of losses are divided by, from the number of anchors, boxes or masks
                of this process; a training in several processes passes their mean.

        Returns:
            `loss_rpn_cls`, `loss_rpn_bbox` (one value per level), `loss_cls`, `loss_bbox` and, with
            a mask head, `loss_mask`: their sum trains. `acc` is the accuracy in percent, for logs.

        Raises:
            ValueError: annotations that do not fit, see `check_annotations`, or no base class.
        """
        weights = self.classes.weights(self.rules.background_weight)
        size = (images.shape[2], images.shape[3])
        check_annotations(
            truths,
            size,
            need_masks=self.mask_head is not None,
            num_classes=self.classes.num_classes,
        )
        truths = [truth.to(images.device) for truth in truths]
        priorities = priorities or Priorities()

        tower = tower or self.backbone.run_tower(images, with_clip=False)
        levels = self.neck(self.backbone.finish(tower).pyramid)
        scores = self.rpn(levels)
        boxes = [truth.boxes for truth in truths]
        losses = self.rpn.losses(scores, boxes, priorities.anchors, divisor=divisor)
        proposals = self.rpn.propose(scores, limits.to(images))

        sampled = sample_batch(
            [proposal.boxes for proposal in proposals],
            truths,
            self.classes.num_columns,
            (self.rules.match, self.rules.sample),
            priorities=priorities.boxes,
        )
        losses |= self.box_losses(levels, sampled, weights, divisor=divisor)
        if self.mask_head is not None:
            losses["loss_mask"] = self.mask_losses(levels, sampled, truths, divisor=divisor)
        return losses

    def box_losses(
        self,
        levels: Sequence[Tensor],
        sampled: Sequence[SampledBoxes],
        weights: Tensor,
        *,
        divisor: Divisor = own_rows,
    ) -> dict[str, Tensor]:
        """Compute the losses of the box head: `loss_cls`, `loss_bbox` and `acc`.

        Args:
            levels: of the neck.
            sampled: boxes of each image.
            weights: (K + M + 1,) of the columns.
            divisor: see `losses`.
        """
        rois = as_rois([one.boxes for one in sampled])
        outputs = self.box_head(self._windows(levels, rois, boxes_of.WINDOW))
        logits = self.box_head.classifier(outputs.features, self.classes.embeddings)

        labels = torch.cat([one.labels for one in sampled])
        loss, accuracy = classification_loss(logits, labels, weights, divisor=divisor)
        targets = torch.cat([one.targets for one in sampled])
        positive = labels < self.classes.num_columns
        distance = box_loss(outputs.deltas, targets, positive, divisor=divisor)
        return {"loss_cls": loss, "loss_bbox": distance, "acc": accuracy}

    def mask_losses(
        self,
        levels: Sequence[Tensor],
        sampled: Sequence[SampledBoxes],
        truths: Sequence[Annotations],
        *,
        divisor: Divisor = own_rows,
    ) -> Tensor:
        """Compute the loss of the mask head over the positive boxes; 0 without any."""
        assert self.mask_head is not None
        rois = as_rois([one.positive_boxes for one in sampled])
        windows = self._windows(levels, rois, masks_of.WINDOW)
        return masks_of.mask_losses(self.mask_head(windows), sampled, truths, divisor=divisor)

    def _windows(self, levels: Sequence[Tensor], rois: Tensor, size: int) -> Tensor:
        """Read boxes (R, 5) from the four finest levels: (R, C, size, size)."""
        strides = self.backbone.strides
        windows = align_pyramid(levels[: len(strides)], rois, size, strides)
        # RoIAlign computes in float32; the heads have the precision of the levels.
        return windows.to(levels[0].dtype)

    def limits_of(self, frames: Sequence[ImageFrame], device: torch.device) -> Tensor:
        """Return the limits of boxes, (height, width) of each image: (B, 2)."""
        to_padding = self.rules.images.clip_to_padding
        sizes = [frame.padded if to_padding else frame.content for frame in frames]
        return torch.tensor(sizes, dtype=torch.float32).to(device, non_blocking=True)
