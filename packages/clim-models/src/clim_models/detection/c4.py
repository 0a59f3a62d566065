"""Detic + CLIM on COCO: a two-stage detector that reads one map of a ResNet, stride 16.

Letters: B images, R boxes of all images, A anchors, K classes, C embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from clim_models.detection.batches import BatchRules, content_limits, prepare_batch
from clim_models.detection.boxes.anchors import AnchorRules
from clim_models.detection.boxes.coding import move_boxes
from clim_models.detection.boxes.matching import MatchRules, SampleRules
from clim_models.detection.boxes.roi import align_map, as_rois
from clim_models.detection.choice import choose_boxes
from clim_models.detection.features.resnet import EXPANSION, ResNet, ResNetRules, build_stage
from clim_models.detection.heads.losses import accuracy, box_loss
from clim_models.detection.heads.rpn import RPN, ProposalRules, RPNRules
from clim_models.detection.heads.sigmoid import SigmoidClassifier, SigmoidRules, sigmoid_loss
from clim_models.detection.heads.targets import (
    Annotations,
    SampledBoxes,
    check_annotations,
    sample_batch,
)
from clim_models.detection.heads.text_classifier import ClassSet
from clim_models.detection.image_level.step import (
    CaptionedImage,
    ImageLevelLosses,
    ImageLevelRules,
)
from clim_models.detection.images import ImageFrame
from clim_models.detection.rules import DetectionRules, Detections, Priorities
from clim_models.detection.text_classes import TextClassDetector
from clim_models.towers.evaluation import evaluation_mode

STRIDE = 16
WINDOW = 14
ANCHORS = AnchorRules((STRIDE,), scales=(2.0, 4.0, 8.0, 16.0, 32.0))
# Statistics of the ResNet-50 of Caffe (MSRA), in the order blue, green, red.
CAFFE_IMAGES = BatchRules((103.53, 116.28, 123.675), (1.0, 1.0, 1.0), bgr=True)


@dataclass(frozen=True, kw_only=True)
class C4Options:
    """Options of a C4 detector; the defaults are those of OV-COCO.

    Attributes:
        resnet: layers of the backbone, the last stage is a part of the box head.
        images: how pictures become a batch.
        classifier: temperature and bias.
        image_level: losses of images without boxes; None trains on boxes only.
        training_proposals, testing_proposals: how proposals are chosen.
        anchor_sample, box_sample: how many anchors and boxes of an image train.
        detections: which boxes are returned.
        rpn_channels: of the proposal network; None is the map's number.
    """

    resnet: ResNetRules = field(default_factory=lambda: ResNetRules(stride_in_1x1=True, frozen=1))
    images: BatchRules = CAFFE_IMAGES
    classifier: SigmoidRules = field(default_factory=lambda: SigmoidRules(25.0, -20.0))
    image_level: ImageLevelRules | None = field(default_factory=ImageLevelRules)
    training_proposals: ProposalRules = field(default_factory=lambda: ProposalRules(12000, 2000))
    testing_proposals: ProposalRules = field(default_factory=lambda: ProposalRules(6000, 1000))
    anchor_sample: SampleRules = field(default_factory=lambda: SampleRules(256, 0.5))
    box_sample: SampleRules = field(default_factory=lambda: SampleRules(512, 0.25))
    detections: DetectionRules = field(default_factory=lambda: DetectionRules(0.05, 0.5, 100))
    rpn_channels: int | None = None


class C4BoxHead(nn.Module):
    """The last stage of the ResNet, its mean, then classes and deltas.

    Args:
        rules: of the ResNet, with its last stage.
        embed_dim: C.
        classifier: temperature and bias.
    """

    def __init__(self, rules: ResNetRules, embed_dim: int, classifier: SigmoidRules):
        super().__init__()
        planes = rules.width * 2 ** (len(rules.blocks) - 1)
        inputs, width = planes * EXPANSION // 2, planes * EXPANSION
        self.layer4 = build_stage(inputs, planes, rules.blocks[-1], True, rules.stride_in_1x1)
        self.classifier = SigmoidClassifier(width, embed_dim, classifier)
        self.deltas = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))
        for module in self.layer4.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.deltas.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.001)
                nn.init.zeros_(module.bias)

    def forward(self, windows: Tensor) -> Tensor:
        """Turn windows of the map into box features: (R, D, 14, 14) -> (R, 2 D)."""
        found: Tensor = self.layer4(windows).mean((2, 3))
        return found


class C4Detector(TextClassDetector):
    """ResNet to stride 16, proposals, and a box head with text classifier.

    A step trains on images with boxes (`losses`), and on images with captions and tags
    (`image_losses`); the sum of both is one backward pass.

    Args:
        classes: names, unit embeddings, and the classes with boxes (`base`).
        options: see `C4Options`.

    Source: Detic, arXiv 2201.02605; mosaics: CLIM, arXiv 2312.11376.
    """

    def __init__(self, classes: ClassSet, options: C4Options):
        super().__init__(classes)
        rules, embed_dim = options.resnet, classes.embeddings.shape[1]
        stages = ResNetRules(rules.blocks[:-1], rules.width, rules.stride_in_1x1, rules.frozen)
        self.options = options
        self.backbone = ResNet(stages)
        channels = self.backbone.channels[-1]
        proposals = RPNRules(
            ANCHORS,
            options.training_proposals,
            options.testing_proposals,
            sample=options.anchor_sample,
            channels=options.rpn_channels,
            depth=1,
        )
        self.rpn = RPN(channels, proposals)
        self.box_head = C4BoxHead(rules, embed_dim, options.classifier)
        level = options.image_level
        self.image_level = None if level is None else ImageLevelLosses(embed_dim, level)

    def _alike(self, classes: ClassSet) -> "C4Detector":
        return C4Detector(classes, self.options)

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
        feature_map = self.backbone(images)[-1]
        limits = content_limits(frames, images.device)
        proposals = self.rpn.propose(self.rpn([feature_map]), limits)
        boxes = [found.boxes for found in proposals]

        features = self.box_features(feature_map, boxes)
        logits = self.box_head.classifier(features, self.classes.embeddings)
        scores = logits.sigmoid()[:, : self.classes.num_classes]
        moved = move_boxes(boxes, self.box_head.deltas(features), limits)
        scored = scores.split([len(box) for box in boxes])
        return [
            choose_boxes(frame.to_picture(box), score, self.options.detections)
            for frame, box, score in zip(frames, moved, scored, strict=True)
        ]

    def box_features(self, feature_map: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        """Read boxes of all images from the map: B tensors (n_i, 4) -> (R, D)."""
        windows = align_map(feature_map, as_rois(boxes), WINDOW, STRIDE)
        found: Tensor = self.box_head(windows)
        return found

    # Training

    def losses(
        self,
        images: Tensor,
        limits: Tensor,
        truths: Sequence[Annotations],
        priorities: Priorities | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses of images with boxes.

        Args:
            images: (B, 3, H, W) of `prepare_batch`.
            limits: (B, 2), height and width of each resized picture.
            truths: annotations of each image, in network pixels.
            priorities: None draws which anchors and boxes train.

        Returns:
            `loss_rpn_cls`, `loss_rpn_bbox`, `loss_cls`, `loss_bbox`: their sum trains. `acc` is the
            accuracy in percent, for logs.

        Raises:
            ValueError: annotations that do not fit, or no base class.
        """
        size = (images.shape[2], images.shape[3])
        classes = self.classes.num_classes
        check_annotations(truths, size, need_masks=False, num_classes=classes)
        truths = [truth.to(images.device) for truth in truths]
        priorities = priorities or Priorities()
        limits = limits.to(images)

        feature_map = self.backbone(images)[-1]
        scores = self.rpn([feature_map])
        usable = self.usable_anchors(scores.anchors, limits)
        boxes = [truth.boxes for truth in truths]
        losses = self.rpn.losses(scores, boxes, priorities.anchors, usable)
        losses = {name: loss.sum() for name, loss in losses.items()}

        proposals = self.rpn.propose(scores, limits)
        sampled = sample_batch(
            [proposal.boxes for proposal in proposals],
            truths,
            self.classes.num_columns,
            (MatchRules(0.5, 0.5), self.options.box_sample),
            priorities=priorities.boxes,
        )
        return losses | self.box_losses(feature_map, sampled)

    def usable_anchors(self, anchors: Tensor, limits: Tensor) -> Tensor:
        """Exclude anchors beyond an image's own size, rounded up: (A, 4), (B, 2) -> bool (B, A).

        A larger neighbour in the batch does not change which anchors of an image train.
        """
        multiple = self.options.images.multiple
        own = (limits / multiple).ceil() * multiple
        centres = (anchors[:, :2] + anchors[:, 2:]) / 2
        # Centres are on the upper left corner of their cell, up to rounding.
        return (centres.flip(1) < own[:, None] - STRIDE / 2).all(-1)

    def box_losses(self, feature_map: Tensor, sampled: Sequence[SampledBoxes]) -> dict[str, Tensor]:
        """Compute `loss_cls`, `loss_bbox` and `acc` of sampled boxes."""
        features = self.box_features(feature_map, [one.boxes for one in sampled])
        logits = self.box_head.classifier(features, self.classes.embeddings)
        labels = torch.cat([one.labels for one in sampled])
        targets = torch.cat([one.targets for one in sampled])
        weights = self.classes.weights(background=0.0)
        positive = labels < self.classes.num_columns
        return {
            "loss_cls": sigmoid_loss(logits, labels, weights),
            "loss_bbox": box_loss(self.box_head.deltas(features), targets, positive),
            "acc": accuracy(logits, labels),
        }

    def image_losses(
        self, images: Tensor, limits: Tensor, batch: Sequence[CaptionedImage]
    ) -> dict[str, Tensor]:
        """Compute the losses of images, or mosaics, with captions and tags.

        The proposal network only proposes here: these losses do not train it.

        Args:
            images: (B, 3, H, W) of `prepare_batch`.
            limits: (B, 2), height and width of each resized picture.
            batch: pictures, tags and captions of each image.

        Returns:
            `loss_tags` and `loss_caption`, as the options ask for.

        Raises:
            ValueError: a detector that trains on boxes only.
        """
        level = self.image_level
        if level is None:
            raise ValueError("this detector trains on boxes only; build it with image_level=...")
        feature_map = self.backbone(images)[-1]
        losses = {}
        if level.tags is not None:
            with torch.no_grad():
                found = self.rpn.propose(self.rpn([feature_map]), limits.to(images))
            boxes, scores = [one.boxes for one in found], [one.scores for one in found]
            regions = level.tag_regions(batch, boxes, scores)
            embedded = self.embed_regions(feature_map, regions.boxes)
            embeddings = self.classes.embeddings
            losses["loss_tags"] = level.tag_loss(embedded, regions, batch, embeddings)
        if level.captions is not None:
            regions = level.caption_regions(batch)
            embedded = self.embed_regions(feature_map, regions.boxes)
            losses["loss_caption"] = level.caption_loss(embedded, regions, batch)
        return losses

    def embed_regions(self, feature_map: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        """Embed boxes of all images: B tensors (n_i, 4) -> (R, C), of any length."""
        found: Tensor = self.box_head.classifier.project(self.box_features(feature_map, boxes))
        return found
