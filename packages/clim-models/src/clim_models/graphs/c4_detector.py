"""The C4 detector of Detic + CLIM as a graph: pixels and classes in, proposals with scores out.

Letters: H W pixels, K classes, C channels, P proposals.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from clim_models.detection.boxes.coding import HEAD_STDS, apply_deltas
from clim_models.detection.boxes.roi import align_map
from clim_models.detection.c4 import STRIDE, WINDOW, C4Detector
from clim_models.detection.rules import DetectionRules
from clim_models.graphs.proposals import (
    ProposalGraph,
    as_rois_of_one,
    choose_proposals,
    clip_to_picture,
)


class C4Graph(ProposalGraph):
    """Proposals of one picture and their scores for any classes.

    Args:
        detector: weights are shared.
    """

    inputs = ("pixels", "classes")
    about_inputs: ClassVar[Mapping[str, str]] = {
        "classes": "float32 (K, C), unit rows; classes.npy, if it is there"
    }

    detector: C4Detector

    def __init__(self, detector: C4Detector):
        images = detector.options.images
        super().__init__(detector, torch.tensor([images.mean, images.std]))

    @property
    def detections(self) -> DetectionRules:
        """The rules of the last suppression, which is left to the caller."""
        return self.detector.options.detections

    @property
    def sizes(self) -> dict[str, int]:
        """The sides of pictures that the detector is read at, for `graphs.json`."""
        images = self.detector.options.images
        return {"short_side_px": images.short, "longest_side_px": images.long}

    @property
    def tower_name(self) -> str:
        """The name of the image tower, for `graphs.json`."""
        return "ResNet"

    @property
    def multiple(self) -> int:
        """Sides of a picture are multiples of it, in pixels."""
        return self.detector.options.images.multiple

    def forward(self, pixels: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Find and score the proposals of a picture.

        Args:
            pixels: uint8 RGB (1, 3, H, W), sides that are multiples of `multiple`, at least 6 of
                them.
            classes: unit rows (K, C).

        Returns:
            Boxes (P, 4) XYXY in pixels and scores (P, K), by falling objectness.
        """
        detector = self.detector
        ordered = pixels.flip(1) if detector.options.images.bgr else pixels
        feature_map = detector.backbone((ordered.float() - self.mean) / self.std)[-1]
        size = (pixels.shape[2], pixels.shape[3])
        rules = detector.rpn.rules.testing
        proposals, usable = choose_proposals(detector.rpn([feature_map]), size, rules)

        windows = align_map(feature_map, as_rois_of_one(proposals), WINDOW, STRIDE)
        head = detector.box_head
        features = head(windows)
        scores = head.classifier(features, classes).sigmoid()[:, :-1]
        boxes = clip_to_picture(apply_deltas(proposals, head.deltas(features), HEAD_STDS), size)
        return boxes * usable[:, None], scores * usable[:, None]
