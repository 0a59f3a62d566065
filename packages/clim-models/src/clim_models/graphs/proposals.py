"""The common part of detectors as graphs: one picture in, a fixed number of scored proposals out.

How many boxes remain after a suppression depends on their values, which a graph of fixed shapes
cannot say. The proposals of a picture are a fixed number here: those that the first suppression
drops have no area and the score 0. The last suppression, class by class, is `suppress_boxes`.

Letters: H W pixels, K classes, C channels, A anchors, P proposals.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms

from clim_models.detection.boxes.coding import apply_deltas, has_area
from clim_models.detection.c4 import C4Detector
from clim_models.detection.detector import TwoStageDetector
from clim_models.detection.heads.rpn import AnchorScores, ProposalRules
from clim_models.detection.heads.text_classifier import ClassSet
from clim_models.detection.rules import DetectionRules

# Positions of a side: with fewer, the coarsest level has a single one.
LEAST_GRID = 6


class ProposalGraph(nn.Module, ABC):
    """A detector up to the scores of its proposals.

    Args:
        detector: weights are shared.
        statistics: mean and standard deviation of the channels in grey levels, (2, 3), in the order
            of the network.

    Attributes:
        inputs: names of the inputs, in their order.
        outputs: names of the outputs.
        about_inputs: what `graphs.json` says of each input but the pixels.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...] = ("boxes", "scores")
    about_inputs: ClassVar[Mapping[str, str]]

    def __init__(self, detector: TwoStageDetector | C4Detector, statistics: Tensor):
        super().__init__()
        self.detector = detector
        device = detector.classes.embeddings.device
        mean, std = statistics.to(device).view(2, 1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.mean: Tensor
        self.std: Tensor

    @property
    def classes(self) -> ClassSet:
        """The classes of the detector."""
        return self.detector.classes

    @property
    @abstractmethod
    def detections(self) -> DetectionRules:
        """The rules of the last suppression, which is left to the caller."""

    @property
    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """The sides of pictures that the detector is read at, for `graphs.json`."""

    @property
    @abstractmethod
    def tower_name(self) -> str | None:
        """The name of the image tower, if it has one, for `graphs.json`."""

    @property
    @abstractmethod
    def multiple(self) -> int:
        """Sides of a picture are multiples of it, in pixels."""

    def examples(self, grid: tuple[int, int], classes: int) -> tuple[Tensor, ...]:
        """Make inputs: a picture of a grid of positions, and a number of classes."""
        generator = torch.Generator().manual_seed(0)
        sides = (grid[0] * self.multiple, grid[1] * self.multiple)
        noise = torch.rand(1, 3, grid[0], grid[1], generator=generator)
        # Patches of colour: more alike than noise, as pictures are.
        pixels = F.interpolate(noise, sides, mode="bilinear") * 255
        width = self.classes.embeddings.shape[1]
        rows = F.normalize(torch.randn(classes, width, generator=generator), dim=-1)
        device = self.mean.device
        return pixels.to(device, torch.uint8), rows.to(device)

    def shapes(self) -> dict[str, dict[int, Any]]:
        """Say which sizes of each input may change, for `torch.export`."""
        rows, columns = (torch.export.Dim(name, min=LEAST_GRID) for name in ("rows", "columns"))
        classes = torch.export.Dim("classes", min=2)
        sides = {2: self.multiple * rows, 3: self.multiple * columns}
        return {"pixels": sides, "classes": {0: classes}}


def choose_proposals(
    found: AnchorScores, size: tuple[int, int], rules: ProposalRules
) -> tuple[Tensor, Tensor]:
    """Choose the proposals of one picture as `RPN.propose`, a fixed number of them.

    Args:
        found: scores of its anchors.
        size: (height, width) of the picture, numbers of the graph.
        rules: how proposals are chosen.

    Returns:
        Boxes (P, 4), and float (P,): 1 for a proposal, 0 for one that is dropped.
    """
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

    boxes = clip_to_picture(apply_deltas(found.anchors[chosen], found.deltas[0, chosen]), size)
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


def as_rois_of_one(boxes: Tensor) -> Tensor:
    """Put the number of the only picture before each box: (P, 4) -> (P, 5)."""
    return torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)


def clip_to_picture(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Clip boxes (n, 4) to a picture whose (height, width) are numbers of the graph."""
    x = boxes[:, 0::2].clamp(min=0, max=size[1])
    y = boxes[:, 1::2].clamp(min=0, max=size[0])
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)
