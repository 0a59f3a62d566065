"""Losses of proposals, boxes and masks.

Letters: B images, A anchors, L levels, R sampled boxes, P positive boxes, K classes.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from clim_models.detection.boxes.coding import box_deltas

Divisor = Callable[[Tensor | int], Tensor | float]
"""The divisor of a sum of losses, from the number of rows (at least 1) of this process.

Gradients are averaged over processes: with the mean number of all processes as the divisor, they
are those of one process with all rows.
"""


def own_rows(count: Tensor | int) -> Tensor | float:
    """Divide by the rows of this process alone."""
    return count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1)


class ScoredAnchors(Protocol):
    """The part of `AnchorScores` that `proposal_losses` reads."""

    @property
    def logits(self) -> Tensor: ...

    @property
    def deltas(self) -> Tensor: ...

    @property
    def anchors(self) -> Tensor: ...

    @property
    def counts(self) -> tuple[int, ...]: ...


def proposal_losses(
    scores: ScoredAnchors,
    annotated: Sequence[Tensor],
    matches: Tensor,
    sampled: Tensor,
    *,
    divisor: Divisor = own_rows,
) -> dict[str, Tensor]:
    """Compute the losses of a region proposal network.

    Binary cross-entropy of the objectness of sampled anchors, and the L1 distance of the deltas of
    the positive ones, summed over four coordinates. Both are divided by the number of sampled
    anchors of all images; an image counts at least one positive and one negative.

    Args:
        scores: objectness and deltas of all anchors.
        annotated: (G_i, 4) of each image.
        matches: (B, A) of `match_boxes`.
        sampled: bool (B, A).
        divisor: see `Divisor`.

    Returns:
        `loss_rpn_cls` and `loss_rpn_bbox`, (L,) each.
    """
    positive = sampled & (matches >= 0)
    negative = sampled & (matches < 0)
    counts = torch.stack([positive.sum(1), negative.sum(1)])
    rows = divisor(counts.clamp(min=1).sum())

    entropy = F.binary_cross_entropy_with_logits(
        scores.logits, positive.to(scores.logits), reduction="none"
    )
    entropy = entropy * sampled

    distances = []
    for deltas, boxes, match, chosen in zip(
        scores.deltas, annotated, matches, positive, strict=True
    ):
        if not len(boxes):
            # No target, but the layer keeps a gradient of zeros.
            distances.append(deltas.sum(-1) * 0)
            continue
        targets = box_deltas(scores.anchors, boxes[match.clamp(min=0)])
        distances.append((deltas - targets).abs().sum(-1) * chosen)

    return {
        "loss_rpn_cls": _per_level(entropy, scores.counts) / rows,
        "loss_rpn_bbox": _per_level(torch.stack(distances), scores.counts) / rows,
    }


def classification_loss(
    logits: Tensor, labels: Tensor, weights: Tensor, *, divisor: Divisor = own_rows
) -> tuple[Tensor, Tensor]:
    """Compute the softmax cross-entropy over the columns that have a weight.

    Columns of weight 0 (classes without annotations) take no part in the softmax. Each box counts
    with the weight of its label; the sum is divided by the number of boxes, not by the sum of
    weights.

    Args:
        logits: (R, K + 1), background last.
        labels: (R,), K is the background.
        weights: (K + 1,), see `class_weights`.
        divisor: see `Divisor`.

    Returns:
        The loss, and the accuracy in percent among the columns that have a weight.
    """
    allowed = logits.float().masked_fill(weights == 0, -torch.inf)
    entropy = F.cross_entropy(allowed, labels, reduction="none")
    loss = (entropy * weights[labels]).sum() / divisor(len(labels))
    return loss, accuracy(allowed, labels)


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the fraction of boxes whose label is the best column, in percent; 0 without boxes."""
    correct = logits.detach().argmax(1) == labels
    return correct.float().sum() * 100 / max(len(labels), 1)


def box_loss(
    deltas: Tensor, targets: Tensor, positive: Tensor, *, divisor: Divisor = own_rows
) -> Tensor:
    """Sum the L1 distance of the deltas of positive boxes and divide by the number of all boxes.

    Args:
        deltas, targets: (R, 4).
        positive: bool (R,).
        divisor: see `Divisor`.
    """
    distance = (deltas.float() - targets).abs().sum(-1) * positive
    return distance.sum() / divisor(len(deltas))


def mask_loss(logits: Tensor, targets: Tensor, *, divisor: Divisor = own_rows) -> Tensor:
    """Average the binary cross-entropy over masks and pixels; 0 without masks.

    Args:
        logits: (P, S, S).
        targets: bool (P, S, S).
        divisor: see `Divisor`; its rows are masks.
    """
    entropy = F.binary_cross_entropy_with_logits(
        logits.float(), targets.to(torch.float32), reduction="sum"
    )
    return entropy / (divisor(len(logits)) * logits.shape[1] * logits.shape[2])


def _per_level(values: Tensor, counts: Sequence[int]) -> Tensor:
    """Sum (B, A) over the images and the anchors of each level: (L,)."""
    return torch.stack([level.sum() for level in values.split(list(counts), dim=1)])
