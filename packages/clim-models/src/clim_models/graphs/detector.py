"""A detector as a graph: pixels and classes in, proposals with scores out, before suppression.

How many boxes remain after a suppression depends on their values, which a graph of fixed shapes
cannot say. The proposals of a picture are a fixed number here: those that the first suppression
drops have no area and the score 0. The last suppression, class by class, is `suppress_boxes`.

Letters: H W pixels, K classes, C channels, A anchors, P proposals.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms

from clim_models.detection.boxes.coding import HEAD_STDS, apply_deltas, has_area
from clim_models.detection.boxes.roi import align_map, level_of_boxes
from clim_models.detection.detector import TwoStageDetector
from clim_models.detection.heads.box_head import WINDOW
from clim_models.detection.heads.ensemble import combine_scores
from clim_models.detection.heads.rpn import AnchorScores

# Positions of a side: with fewer, the coarsest level has a single one.
LEAST_GRID = 6


class DetectorGraph(nn.Module):
    """Proposals of one picture and their scores for any classes; masks are left out.

    Args:
        detector: on a frozen tower, of `build_fvit` or `build_frozen_clip`; weights are shared.
    """

    inputs: tuple[str, ...] = ("pixels", "classes", "is_base")
    outputs: tuple[str, ...] = ("boxes", "scores")

    def __init__(self, detector: TwoStageDetector):
        super().__init__()
        self.detector = detector
        images = detector.rules.images
        device = detector.classes.embeddings.device
        statistics = torch.tensor([images.mean, images.std], device=device).view(2, 1, 3, 1, 1)
        mean, std = statistics * 255
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.mean: Tensor
        self.std: Tensor

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
        proposals, usable = self._proposals(detector.rpn(levels), size)

        rois = torch.cat([torch.zeros_like(proposals[:, :1]), proposals], dim=1)
        outputs = detector.box_head(self._windows(levels, rois))
        classifier = detector.box_head.classifier
        logits = classifier(outputs.features, classes)
        own = classifier.cosines(detector.backbone.region_features(maps.clip, rois), classes)
        scores = combine_scores(logits, own, is_base, detector.rules.ensemble)[:, :-1]
        boxes = _clip(apply_deltas(proposals, outputs.deltas, HEAD_STDS), size)
        return boxes * usable[:, None], scores * usable[:, None]

    def _proposals(self, found: AnchorScores, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Choose proposals as `RPN.propose`: boxes (P, 4), and which are not dropped, bool (P,)."""
        rules = self.detector.rpn.rules.testing
        places = []
        levels = []
        start = 0
        for level, count in enumerate(found.counts):
            logits = found.logits[0, start : start + count]
            # A level may have fewer anchors than are wanted of it: -1 stands for the missing ones.
            padded = F.pad(logits, (0, rules.before_nms), value=-torch.inf)
            best = padded.topk(rules.before_nms).indices
            places.append(torch.where(best < count, best + start, -1))
            levels.append(torch.full_like(best, level))
            start = start + count
        chosen, level_of = torch.cat(places), torch.cat(levels)
        is_anchor = chosen >= 0
        chosen = chosen.clamp(min=0)

        boxes = _clip(apply_deltas(found.anchors[chosen], found.deltas[0, chosen]), size)
        is_box = is_anchor * has_area(boxes)
        values = found.logits[0, chosen].sigmoid() * is_box
        # Boxes of different levels never overlap when each level has a place of its own.
        shift = level_of * (max(size) + 1)
        kept = nms(boxes * is_box[:, None] + shift[:, None], values, rules.overlap)
        # The suppression returns the best first; equal scores stay in its order.
        turn = torch.arange(kept.shape[0], device=kept.device)
        rank = (values.shape[0] - turn).to(values)
        rank = torch.zeros_like(values).scatter(0, kept, rank) * is_box

        most = min(rules.after_nms, rules.before_nms * len(found.counts))
        best_ranks, order = rank.topk(most)
        usable = (best_ranks > 0).to(values)
        return boxes[order] * usable[:, None], usable

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
        model = self.detector.backbone.model
        generator = torch.Generator().manual_seed(0)
        sides = (grid[0] * self.multiple, grid[1] * self.multiple)
        noise = torch.rand(1, 3, grid[0], grid[1], generator=generator)
        # Patches of colour: more alike than noise, as pictures are.
        pixels = F.interpolate(noise, sides, mode="bilinear") * 255
        rows = F.normalize(torch.randn(classes, model.embed_dim, generator=generator), dim=-1)
        is_base = torch.arange(classes) % 2 == 0
        device = self.mean.device
        return pixels.to(device, torch.uint8), rows.to(device), is_base.to(device)

    def shapes(self) -> dict[str, dict[int, object]]:
        """Say which sizes of each input may change, for `torch.export`."""
        rows, columns = (torch.export.Dim(name, min=LEAST_GRID) for name in ("rows", "columns"))
        classes = torch.export.Dim("classes", min=2)
        sides: dict[int, object] = {2: self.multiple * rows, 3: self.multiple * columns}
        return {"pixels": sides, "classes": {0: classes}, "is_base": {0: classes}}


def _clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Clip boxes (n, 4) to a picture whose (height, width) are numbers of the graph."""
    x = boxes[:, 0::2].clamp(min=0, max=size[1])
    y = boxes[:, 1::2].clamp(min=0, max=size[0])
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)
