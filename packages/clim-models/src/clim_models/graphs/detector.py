"""A detector on a frozen tower as a graph: pixels and classes in, proposals with scores out.

Letters: H W pixels, K classes, C channels, P proposals.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from clim_models.detection.boxes.coding import HEAD_STDS, apply_deltas
from clim_models.detection.boxes.roi import align_map, level_of_boxes
from clim_models.detection.detector import TwoStageDetector
from clim_models.detection.heads.box_head import WINDOW
from clim_models.detection.heads.ensemble import combine_scores
from clim_models.detection.rules import DetectionRules
from clim_models.graphs.proposals import (
    ProposalGraph,
    as_rois_of_one,
    choose_proposals,
    clip_to_picture,
)


class DetectorGraph(ProposalGraph):
    """Proposals of one picture and their scores for any classes; masks are left out.

    Args:
        detector: on a frozen tower, of `build_fvit` or `build_frozen_clip`; weights are shared.
    """

    inputs = ("pixels", "classes", "is_base")
    about_inputs: ClassVar[Mapping[str, str]] = {
        "classes": "float32 (K, C), unit rows; classes.npy, if it is there",
        "is_base": "bool (K,), the classes that the detector was trained on",
    }

    detector: TwoStageDetector

    def __init__(self, detector: TwoStageDetector):
        images = detector.rules.images
        super().__init__(detector, torch.tensor([images.mean, images.std]) * 255)

    @property
    def detections(self) -> DetectionRules:
        """The rules of the last suppression, which is left to the caller."""
        return self.detector.rules.detections

    @property
    def sizes(self) -> dict[str, int]:
        """The side of pictures that the detector is read at, for `graphs.json`."""
        return {"longest_side_px": self.detector.rules.images.size}

    @property
    def tower_name(self) -> str | None:
        """The name of the image tower, if it has one, for `graphs.json`."""
        return self.detector.backbone.model.name

    @property
    def multiple(self) -> int:
        """Sides of a picture are multiples of it, in pixels."""
        return self.detector.backbone.model.stride

    def forward(self, pixels: Tensor, classes: Tensor, is_base: Tensor) -> tuple[Tensor, Tensor]:
        """Find and score the proposals of a picture.

        Args:
            pixels: uint8 RGB (1, 3, H, W), sides that are multiples of `multiple`, at least 6 of
                them.
            classes: unit rows (K, C).
            is_base: bool (K,), the classes that the detector was trained on.

        Returns:
            Boxes (P, 4) XYXY in pixels and scores (P, K), by falling objectness.
        """
        detector = self.detector
        images = (pixels.float() - self.mean) / self.std
        maps = detector.backbone(images, with_clip=True)
        assert maps.clip is not None
        levels = detector.neck(maps.pyramid)
        size = (pixels.shape[2], pixels.shape[3])
        rules = detector.rpn.rules.testing
        proposals, usable = choose_proposals(detector.rpn(levels), size, rules)

        rois = as_rois_of_one(proposals)
        outputs = detector.box_head(self._windows(levels, rois))
        classifier = detector.box_head.classifier
        logits = classifier(outputs.features, classes)
        own = classifier.cosines(detector.backbone.region_features(maps.clip, rois), classes)
        scores = combine_scores(logits, own, is_base, detector.rules.ensemble)[:, :-1]
        boxes = clip_to_picture(apply_deltas(proposals, outputs.deltas, HEAD_STDS), size)
        return boxes * usable[:, None], scores * usable[:, None]

    def _windows(self, levels: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Read boxes as `align_pyramid`: on other levels than its own a box has no area, and reads
        zeros."""
        strides = self.detector.backbone.strides
        level_of = level_of_boxes(rois[:, 1:], len(strides))
        found = None
        for level, stride in enumerate(strides):
            here = rois * (level_of == level)[:, None]
            windows = align_map(levels[level], here, WINDOW, stride)
            found = windows if found is None else found + windows
        assert found is not None
        return found

    def examples(self, grid: tuple[int, int], classes: int) -> tuple[Tensor, ...]:
        """Make inputs: a picture of a grid of positions, and a number of classes."""
        is_base = torch.arange(classes, device=self.mean.device) % 2 == 0
        return (*super().examples(grid, classes), is_base)

    def shapes(self) -> dict[str, dict[int, object]]:
        """Say which sizes of each input may change, for `torch.export`."""
        shapes = super().shapes()
        return {**shapes, "is_base": shapes["classes"]}
