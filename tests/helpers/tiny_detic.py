"""Tiny detectors of Detic + CLIM."""

from dataclasses import replace

import torch
from clim_models.detection import (
    C4Detector,
    C4Options,
    CascadeDetector,
    CascadeOptions,
    ClassSet,
    DetectionRules,
)
from clim_models.detection.boxes.matching import SampleRules
from clim_models.detection.c4 import CAFFE_IMAGES
from clim_models.detection.cascade_options import RGB_IMAGES
from clim_models.detection.features.resnet import ResNetRules
from clim_models.detection.heads.centres import CentreRules
from clim_models.detection.heads.rpn import ProposalRules

BLOCKS, WIDTH = (1, 1, 1, 1), 4
NAMES = ("cat", "dog", "bird")


def tiny_classes(width: int = 8) -> ClassSet:
    rows = torch.nn.functional.normalize(torch.randn(len(NAMES), width), dim=1)
    return ClassSet(NAMES, rows, [0, 1])


def tiny_c4(classes: ClassSet | None = None, **options) -> C4Detector:
    """An OV-COCO detector with few channels."""
    few = ProposalRules(60, 20)
    sizes = {
        "resnet": ResNetRules(BLOCKS, WIDTH, stride_in_1x1=True, frozen=1),
        "images": replace(CAFFE_IMAGES, short=32, long=64),
        "detections": DetectionRules(0.0, 0.5, 5),
        "training_proposals": few,
        "testing_proposals": few,
        "box_sample": SampleRules(16, 0.25),
        "rpn_channels": 8,
    }
    return C4Detector(classes or tiny_classes(), C4Options(**{**sizes, **options}))


def tiny_cascade(classes: ClassSet | None = None, **options) -> CascadeDetector:
    """An OV-LVIS detector with few channels."""
    few = ProposalRules(40, 20, 0.9)
    sizes = {
        "resnet": ResNetRules(BLOCKS, WIDTH),
        "images": replace(RGB_IMAGES, short=32, long=64),
        "detections": DetectionRules(0.0, 0.5, 5),
        "centres": CentreRules(training=few, testing=few, groups=2),
        "channels": 8,
        "width": 16,
        "mask_channels": 8,
        "box_sample": SampleRules(16, 0.25),
    }
    classes = classes or tiny_classes()
    counts = torch.arange(1, classes.num_classes + 1)
    return CascadeDetector(classes, counts, CascadeOptions(**{**sizes, **options}))


def centre_losses(images: slice, **options) -> dict[str, torch.Tensor]:
    """Losses of centres of some of two images, the second of which has more boxes."""
    torch.manual_seed(0)
    detector = tiny_cascade().train()
    pixels = torch.randn(2, 3, 64, 64)
    boxes = [
        torch.tensor([[4.0, 4, 40, 44]]),
        torch.tensor([[8.0, 8, 30, 30], [20, 2, 60, 50], [0, 30, 20, 64]]),
    ]
    with torch.no_grad():
        scores = detector.centres(detector.levels_of(pixels[images]))
    return detector.centres.losses(scores, boxes[images], **options)
