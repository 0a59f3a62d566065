"""The assembly of a detector from its parts."""

from dataclasses import dataclass, replace

from clim_models.detection.boxes.anchors import AnchorRules
from clim_models.detection.boxes.matching import MatchRules
from clim_models.detection.detector import TwoStageDetector
from clim_models.detection.features.backbone import Backbone
from clim_models.detection.features.fpn import Neck
from clim_models.detection.heads.box_head import BoxHead, BoxHeadRules
from clim_models.detection.heads.mask_head import MaskHead
from clim_models.detection.heads.rpn import RPN, RPNRules
from clim_models.detection.heads.text_classifier import ClassSet, TextClassifier
from clim_models.detection.images import ImageRules
from clim_models.detection.rules import DetectorOptions, DetectorRules
from clim_models.region_model import RegionModel

# Overlap that makes a proposal positive.
POSITIVE = 0.5


@dataclass(frozen=True)
class Frame:
    """The parts of a detector before its heads, and the rules for its pictures."""

    backbone: Backbone
    neck: Neck
    images: ImageRules


def clip_images(model: RegionModel, size: int) -> ImageRules:
    """Return rules with the statistics that the tower was trained with, padding that is 0."""
    mean, std = tuple(model.image_mean), tuple(model.image_std)
    return ImageRules(size, (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def assemble(
    frame: Frame,
    classifier: TextClassifier,
    head: BoxHeadRules,
    classes: ClassSet,
    *,
    options: DetectorOptions,
) -> TwoStageDetector:
    """Put a detector together.

    Args:
        frame: backbone, neck and image rules.
        classifier: compares box features with class embeddings.
        head: layers of the box head.
        classes: names, embeddings and base classes.
        options: everything else.

    Returns:
        The detector, its new parts with their random initialisation, on the tower's device.
    """
    channels = options.channels
    strides = (*frame.backbone.strides, 2 * frame.backbone.strides[-1])
    rpn = RPNRules(
        AnchorRules(strides),
        training=options.training_proposals,
        testing=options.testing_proposals,
        norm=options.rpn_norm,
    )
    rules = DetectorRules(
        images=frame.images,
        ensemble=options.ensemble,
        detections=options.detections,
        match=MatchRules(POSITIVE, POSITIVE, POSITIVE if options.best_proposal else None),
        background_weight=options.background_weight,
    )
    detector = TwoStageDetector(
        frame.backbone,
        frame.neck,
        RPN(channels, rpn),
        BoxHead(channels, classifier, head),
        mask_head=MaskHead(channels) if options.masks else None,
        classes=classes,
        rules=rules,
    )
    detector.options = options
    return detector.to(frame.backbone.model.device)


def original_images(rules: ImageRules) -> ImageRules:
    """Pad with the mean in the wrong order of channels, and let boxes reach into the padding."""
    swapped = zip(rules.mean[::-1], rules.mean, rules.std, strict=True)
    red, green, blue = ((wrong - right) / std for wrong, right, std in swapped)
    return replace(rules, padding=(red, green, blue), round_pixels=False, clip_to_padding=True)
