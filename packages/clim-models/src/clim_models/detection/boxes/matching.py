"""Matching of boxes with annotations, and the choice of the boxes that train.

Letters: N boxes (anchors or proposals), G annotated boxes of one image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

NEGATIVE = -1
IGNORED = -2


@dataclass(frozen=True)
class MatchRules:
    """Overlaps (IoU) that make a box positive or negative.

    Attributes:
        positive: at least this overlap with some annotation.
        negative: less than this overlap with all annotations; between both a box is ignored.
        best_of_annotation: None, or the least overlap at which the boxes that overlap an annotation
            most belong to it, even below `positive` or if another annotation overlaps them more.

    Raises:
        ValueError: overlaps out of order or outside [0, 1].
    """

    positive: float
    negative: float
    best_of_annotation: float | None = None

    def __post_init__(self) -> None:
        least = self.negative if self.best_of_annotation is None else self.best_of_annotation
        if not (0 <= self.negative <= self.positive <= 1 and 0 <= least <= 1):
            raise ValueError(
                f"positive={self.positive}, negative={self.negative}, "
                f"best_of_annotation={self.best_of_annotation}; "
                "pass 0 <= negative <= positive <= 1"
            )


@dataclass(frozen=True)
class SampleRules:
    """Number of boxes of an image that train.

    Attributes:
        number: positive and negative boxes together.
        positive_fraction: largest fraction of positive ones.

    Raises:
        ValueError: no box, or a fraction outside [0, 1].
    """

    number: int
    positive_fraction: float

    def __post_init__(self) -> None:
        if self.number < 1 or not 0 <= self.positive_fraction <= 1:
            raise ValueError(
                f"number={self.number}, positive_fraction={self.positive_fraction}; "
                "pass a number of at least 1 and a fraction from 0 to 1"
            )

    @property
    def positives(self) -> int:
        """Largest number of positive boxes."""
        return int(self.number * self.positive_fraction)


def match_boxes(boxes: Tensor, annotated: Tensor, rules: MatchRules) -> Tensor:
    """Match boxes with the annotations of one image.

    Annotations that share a best box take it in their order: the last one has it.

    Args:
        boxes: (N, 4).
        annotated: (G, 4); G may be 0.

    Returns:
        (N,) int64: number of the annotation, `NEGATIVE` or `IGNORED`.
    """
    if not len(annotated):
        return torch.full((len(boxes),), NEGATIVE, dtype=torch.int64, device=boxes.device)

    # 0 / 0 of two boxes without area is no overlap.
    overlaps = box_iou(annotated.float(), boxes.float()).nan_to_num(0.0)  # (G, N)
    best, owner = overlaps.max(dim=0)
    matches = torch.where(best < rules.negative, NEGATIVE, IGNORED)
    matches = torch.where(best >= rules.positive, owner, matches)

    if rules.best_of_annotation is not None and len(boxes):
        best_of = overlaps.amax(dim=1, keepdim=True)  # (G, 1)
        is_best = (overlaps == best_of) & (best_of >= rules.best_of_annotation)
        numbers = torch.arange(len(annotated), device=boxes.device)[:, None]
        last = torch.where(is_best, numbers, -1).amax(dim=0)
        matches = torch.where(last >= 0, last, matches)
    return matches


def draw_priorities(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw a random number in [0, 1) for each entry of `like`."""
    return torch.rand(like.shape, device=like.device, generator=generator)


def sample_matches(matches: Tensor, priorities: Tensor, rules: SampleRules) -> Tensor:
    """Choose the boxes that train: those of highest priority among positives and negatives.

    If there are fewer positives than allowed, negatives take their place. Shapes do not depend on
    values, so no device has to wait for the numbers.

    Args:
        matches: (..., N) of `match_boxes`; leading dimensions are images.
        priorities: (..., N), any distinct numbers of [0, 1], see `draw_priorities`.

    Returns:
        bool (..., N).
    """
    positive = _highest(matches >= 0, priorities, rules.positives)
    rest = rules.number - positive.sum(-1, keepdim=True)
    return positive | _highest(matches == NEGATIVE, priorities, rules.number, rest)


def _highest(
    candidates: Tensor, priorities: Tensor, most: int, limit: Tensor | None = None
) -> Tensor:
    """Mark the `limit` candidates of highest priority, at most `most` of them."""
    size = candidates.shape[-1]
    most = min(most, size)
    keys = priorities.masked_fill(~candidates, -1.0)
    order = keys.topk(most, dim=-1).indices

    rank = torch.arange(most, device=keys.device).expand(order.shape)
    chosen = torch.ones_like(rank, dtype=torch.bool) if limit is None else rank < limit
    return torch.zeros_like(candidates).scatter(-1, order, chosen) & candidates
