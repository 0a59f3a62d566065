"""Detic + CLIM on LVIS: centres as proposals, a cascade of three box heads, masks.

Letters: B images, R boxes of all images, K classes, C embedding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clim_models.detection.batches import content_limits, prepare_batch
from clim_models.detection.boxes.coding import move_boxes
from clim_models.detection.boxes.matching import MatchRules
from clim_models.detection.boxes.roi import align_pyramid, as_rois
from clim_models.detection.cascade_options import CascadeOptions
from clim_models.detection.choice import choose_boxes, with_masks
from clim_models.detection.features.coarse_fpn import CoarseFPN
from clim_models.detection.features.resnet import ResNet
from clim_models.detection.heads import cascade_head, mask_head
from clim_models.detection.heads.cascade_head import CascadeHead
from clim_models.detection.heads.cascade_losses import stage_losses
from clim_models.detection.heads.centres import CentreNetwork
from clim_models.detection.heads.losses import Divisor, own_rows
from clim_models.detection.heads.mask_head import MaskHead, mask_losses
from clim_models.detection.heads.sigmoid import federated_keys
from clim_models.detection.heads.targets import (
    Annotations,
    check_annotations,
    sample_batch,
)
from clim_models.detection.heads.text_classifier import ClassSet
from clim_models.detection.image_level.step import (
    CaptionedImage,
    ImageLevelLosses,
)
from clim_models.detection.images import ImageFrame
from clim_models.detection.rules import Detections, Priorities
from clim_models.detection.text_classes import TextClassDetector
from clim_models.towers.evaluation import evaluation_mode

# Stages of the backbone whose maps are read, and the levels that boxes are read from.
MAPS = 3
FINEST = 112.0
STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
OVERLAPS = (0.6, 0.7, 0.8)


def combined_scores(probabilities: Tensor, proposal_scores: Tensor) -> Tensor:
    """Compute the geometric mean of classes and proposals: (n, K + 1), (n,) -> (n, K + 1)."""
    return (probabilities * proposal_scores[:, None]).sqrt()


class CascadeDetector(TextClassDetector):
    """ResNet, pyramid, centres, three box heads that refine each other's boxes, and masks.

    Args:
        classes: names and unit embeddings.
        image_counts: (K,), number of training images of each class.
        options: see `CascadeOptions`.

    Source: Detic, arXiv 2201.02605, on CenterNet2, arXiv 2103.07461; mosaics: CLIM.
    """

    image_counts: Tensor

    def __init__(self, classes: ClassSet, image_counts: Tensor, options: CascadeOptions):
        super().__init__(classes)
        if len(image_counts) != classes.num_classes:
            raise ValueError(
                f"{len(image_counts)} image counts for {classes.num_classes} classes; "
                "pass one per class"
            )
        embed_dim, channels = classes.embeddings.shape[1], options.channels
        self.options = options
        self.register_buffer("image_counts", image_counts.float(), persistent=False)
        self.backbone = ResNet(options.resnet)
        self.neck = CoarseFPN(self.backbone.channels[-MAPS:], channels)
        self.centres = CentreNetwork(channels, options.centres)
        stages = [CascadeHead(channels, options.width, embed_dim, options.classifier) for _ in STDS]
        self.stages = nn.ModuleList(stages)
        self.mask_head = MaskHead(channels, options.mask_channels, norm=False)
        level = options.image_level
        self.image_level = None if level is None else ImageLevelLosses(embed_dim, level)

    def _alike(self, classes: ClassSet) -> "CascadeDetector":
        device = classes.embeddings.device
        counts = torch.ones(classes.num_classes, device=device)
        return CascadeDetector(classes, counts, self.options)

    # Detection

    @torch.no_grad()
    def detect(self, pictures: Sequence[Tensor]) -> list[Detections]:
        """Find objects in pictures of any sizes: uint8 RGB (3, height, width) each.

        Raises:
            ValueError: see `prepare_batch`.
        """
        images, frames = prepare_batch(pictures, self.options.images)
        with evaluation_mode(self):
            found: list[Detections] = self(images.to(self.classes.embeddings.device), frames)
        return found

    @torch.no_grad()
    def forward(self, images: Tensor, frames: Sequence[ImageFrame]) -> list[Detections]:
        """Find objects in prepared images.

        Args:
            images: (B, 3, H, W) of `prepare_batch`.
            frames: sizes of each.
        """
        levels = self.levels_of(images)
        proposals = self.centres.propose(self.centres(levels))
        limits = content_limits(frames, images.device)
        boxes, mean = self.refine_and_score(levels, [one.boxes for one in proposals], limits)

        found = []
        for box, score, proposal, frame in zip(boxes, mean, proposals, frames, strict=True):
            own = combined_scores(score, proposal.scores)[:, : self.classes.num_classes]
            found.append(choose_boxes(frame.to_picture(box), own, self.options.detections))
        return self._with_masks(found, levels, frames)

    def levels_of(self, images: Tensor) -> list[Tensor]:
        """Compute the pyramid, five levels, finest first."""
        return self.neck(self.backbone(images)[-MAPS:])

    def refine_and_score(
        self, levels: Sequence[Tensor], boxes: list[Tensor], limits: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Refine boxes in three stages and average their probabilities.

        Args:
            levels: of `levels_of`.
            boxes: (n_i, 4) of each image.
            limits: (B, 2), height and width that boxes are clipped to.

        Returns:
            Boxes (n_i, 4) and probabilities (n_i, K + 1) of each image, background last.
        """
        counts = [len(box) for box in boxes]
        total: Tensor | None = None
        for stage in range(len(STDS)):
            features = self.box_features(levels, boxes, stage)
            probabilities = self.head(stage).classifier(features, self.classes.embeddings).sigmoid()
            total = probabilities if total is None else total + probabilities
            boxes = self.moved(boxes, features, limits, stage)
        assert total is not None
        return boxes, list((total / len(STDS)).split(counts))

    def head(self, stage: int) -> CascadeHead:
        """Return the box head of a stage, counted from 0."""
        found = self.stages[stage]
        assert isinstance(found, CascadeHead)
        return found

    def box_features(self, levels: Sequence[Tensor], boxes: Sequence[Tensor], stage: int) -> Tensor:
        """Read boxes of all images for a stage: B tensors (n_i, 4) -> (R, D)."""
        windows = self._windows(levels, as_rois(boxes), cascade_head.WINDOW)
        found: Tensor = self.head(stage)(windows)
        return found

    @torch.no_grad()
    def moved(
        self, boxes: Sequence[Tensor], features: Tensor, limits: Tensor, stage: int
    ) -> list[Tensor]:
        """Move boxes by the deltas of a stage and clip them: B tensors (n_i, 4)."""
        return move_boxes(boxes, self.head(stage).deltas(features), limits, STDS[stage])

    def _windows(self, levels: Sequence[Tensor], rois: Tensor, size: int) -> Tensor:
        strides = self.options.centres.heatmap.strides[:MAPS]
        return align_pyramid(levels[:MAPS], rois, size, strides, finest=FINEST)

    def _with_masks(
        self, found: list[Detections], levels: Sequence[Tensor], frames: Sequence[ImageFrame]
    ) -> list[Detections]:
        boxes = [frame.to_network(one.boxes) for one, frame in zip(found, frames, strict=True)]
        windows = self._windows(levels, as_rois(boxes), mask_head.WINDOW)
        return with_masks(found, self.mask_head(windows), frames)

    # Training

    def losses(
        self,
        images: Tensor,
        limits: Tensor,
        truths: Sequence[Annotations],
        priorities: Priorities | None = None,
        *,
        divisor: Divisor = own_rows,
    ) -> dict[str, Tensor]:
        """Compute the losses of images with boxes and masks.

        Args:
            images: (B, 3, H, W) of `prepare_batch`.
            limits: (B, 2), height and width of each resized picture.
            truths: annotations of each image, in network pixels.
            priorities: None draws which boxes of the first stage and which classes train.
            divisor: what sums of losses of centres are divided by. A training in several processes
                passes the mean over them, as the original does; boxes are divided by their number
                in each process.

        Returns:
            `rpn_loss_...`, `s0.loss_cls`, `s0.loss_bbox`, ... of each stage, and `loss_mask`: their
            sum trains. `s0.acc`, ... are accuracies in percent, for logs.

        Raises:
            ValueError: annotations that do not fit.
        """
        size, classes = (images.shape[2], images.shape[3]), self.classes.num_classes
        check_annotations(truths, size, need_masks=True, num_classes=classes)
        truths = [truth.to(images.device) for truth in truths]
        priorities, limits = priorities or Priorities(), limits.to(images)

        levels = self.levels_of(images)
        scores = self.centres(levels)
        annotated = [truth.boxes for truth in truths]
        losses = self.centres.losses(scores, annotated, divisor=divisor)
        boxes = [one.boxes for one in self.centres.propose(scores)]

        for stage in range(len(STDS)):
            found, boxes = self._train_stage(levels, boxes, truths, stage, (priorities, limits))
            losses |= found
        return losses

    def _train_stage(
        self,
        levels: Sequence[Tensor],
        boxes: list[Tensor],
        truths: Sequence[Annotations],
        stage: int,
        given: tuple[Priorities, Tensor],
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Compute the losses of a stage, and the boxes of the next one."""
        priorities, limits = given
        first = stage == 0
        sampled = sample_batch(
            boxes,
            truths,
            self.classes.num_columns,
            (MatchRules(OVERLAPS[stage], OVERLAPS[stage]), self.options.box_sample),
            priorities=priorities.boxes if first else None,
            stds=STDS[stage],
            append=first,
        )
        boxes = [one.boxes for one in sampled]
        features = self.box_features(levels, boxes, stage)
        logits = self.head(stage).classifier(features, self.classes.embeddings)
        keys = priorities.classes[stage] if priorities.classes else self._class_keys()
        deltas = self.head(stage).deltas(features)
        found = stage_losses(logits, deltas, sampled, keys, self.options.losses)
        losses = {f"s{stage}.{name}": value for name, value in found.items()}

        if first:
            rois = as_rois([one.positive_boxes for one in sampled])
            windows = self._windows(levels, rois, mask_head.WINDOW)
            losses["loss_mask"] = mask_losses(self.mask_head(windows), sampled, truths)
        return losses, self.moved(boxes, features, limits, stage)

    def _class_keys(self) -> Tensor:
        return federated_keys(self.image_counts)

    def image_losses(
        self,
        images: Tensor,
        limits: Tensor,
        batches: Sequence[Sequence[CaptionedImage]],
    ) -> dict[str, Tensor]:
        """Compute the losses of images, or mosaics, with captions and tags, in every stage.

        The proposal network only proposes here. Captions enter the queue in the last stage.

        Args:
            images: (B, 3, H, W) of `prepare_batch`.
            limits: (B, 2), height and width of each resized picture.
            batches: pictures, tags and captions of each image, one list per stage, because groups
                and captions are drawn anew in each.

        Returns:
            `0.loss_tags`, `0.loss_caption`, ... of each stage, as the options ask for.

        Raises:
            ValueError: a detector that trains on boxes only, or another number of lists.
        """
        level = self.image_level
        if level is None:
            raise ValueError("this detector trains on boxes only; build it with image_level=...")
        if len(batches) != len(STDS):
            raise ValueError(f"{len(batches)} lists of images; pass one for each of the 3 stages")
        limits = limits.to(images)
        levels = self.levels_of(images)
        losses: dict[str, Tensor] = {}
        if level.tags is not None:
            losses |= self._tag_losses(level, levels, limits, batches)
        if level.captions is not None:
            for stage, batch in enumerate(batches):
                regions = level.caption_regions(batch)
                features = self.box_features(levels, regions.boxes, stage)
                embedded = self.head(stage).classifier.project(features)
                last = stage == len(STDS) - 1
                loss = level.caption_loss(embedded, regions, batch, remember=last)
                losses[f"{stage}.loss_caption"] = loss
        return losses

    def _tag_losses(
        self,
        level: ImageLevelLosses,
        levels: Sequence[Tensor],
        limits: Tensor,
        batches: Sequence[Sequence[CaptionedImage]],
    ) -> dict[str, Tensor]:
        with torch.no_grad():
            found = self.centres.propose(self.centres(levels))
        boxes = [one.boxes for one in found]
        scores: list[Tensor] | None = [one.scores for one in found]
        losses = {}
        for stage, batch in enumerate(batches):
            regions = level.tag_regions(batch, boxes, scores)
            features = self.box_features(levels, regions.boxes, stage)
            embedded = self.head(stage).classifier.project(features)
            losses[f"{stage}.loss_tags"] = level.tag_loss(
                embedded, regions, batch, self.classes.embeddings
            )
            boxes, scores = self.moved(regions.boxes, features, limits, stage), None
            if not self.options.groups_compete:
                boxes = [box[: len(image.boxes)] for box, image in zip(boxes, batch, strict=True)]
        return losses
