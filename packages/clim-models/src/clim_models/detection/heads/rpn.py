"""Region proposal network: the anchors that contain an object of any class.

Letters: B images, A anchors of all levels, L levels, n_i proposals of image i.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from clim_models.detection.boxes.anchors import AnchorRules, anchor_boxes
from clim_models.detection.boxes.coding import apply_deltas, clip_to, has_area
from clim_models.detection.boxes.matching import (
    IGNORED,
    MatchRules,
    SampleRules,
    draw_priorities,
    match_boxes,
    sample_matches,
)
from clim_models.detection.features.conv import ConvNorm
from clim_models.detection.heads.losses import Divisor, own_rows, proposal_losses


@dataclass(frozen=True)
class ProposalRules:
    """Rules for the choice of proposals.

    Attributes:
        before_nms: at most this number of anchors per level, by score.
        after_nms: at most this number of proposals per image.
        overlap: IoU above which the box of lower score is dropped, per level.

    Raises:
        ValueError: a number below 1 or an overlap outside [0, 1].
    """

    before_nms: int = 2000
    after_nms: int = 1000
    overlap: float = 0.7

    def __post_init__(self) -> None:
        if min(self.before_nms, self.after_nms) < 1 or not 0 <= self.overlap <= 1:
            raise ValueError(
                f"before_nms={self.before_nms}, after_nms={self.after_nms}, "
                f"overlap={self.overlap}; pass numbers of at least 1 and an overlap from 0 to 1"
            )


@dataclass(frozen=True)
class RPNRules:
    """All rules of a region proposal network.

    Attributes:
        anchors: shapes of the anchors.
        training, testing: how proposals are chosen.
        match: which anchors are positive.
        sample: which anchors train.
        norm: whether the convolutions have batch norms.
        channels: of the convolutions; None is the neck's number.
        depth: number of convolutions.
    """

    anchors: AnchorRules
    training: ProposalRules = field(default_factory=ProposalRules)
    testing: ProposalRules = field(default_factory=ProposalRules)
    match: MatchRules = field(default_factory=lambda: MatchRules(0.7, 0.3, 0.3))
    sample: SampleRules = field(default_factory=lambda: SampleRules(256, 0.5))
    norm: bool = False
    channels: int | None = None
    depth: int = 2


@dataclass(frozen=True)
class AnchorScores:
    """The output of the network for every anchor.

    Attributes:
        logits: (B, A), objectness.
        deltas: (B, A, 4).
        anchors: (A, 4) XYXY in pixels.
        counts: number of anchors of each level; their sum is A.
    """

    logits: Tensor
    deltas: Tensor
    anchors: Tensor
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Proposals:
    """Proposals of one image, by falling score.

    Attributes:
        boxes: (n, 4) XYXY in pixels of the network input.
        scores: (n,), from 0 to 1.
    """

    boxes: Tensor
    scores: Tensor


class RPN(nn.Module):
    """3x3 convolutions, then objectness and box deltas of each anchor.

    Norms act level by level: a training step has the statistics of each level apart.

    Args:
        channels: channels of the neck.
        rules: see `RPNRules`.

    Source: Faster R-CNN, arXiv 1506.01497.
    """

    def __init__(self, channels: int, rules: RPNRules):
        super().__init__()
        self.rules = rules
        inner = rules.channels or channels
        inputs = [channels] + [inner] * (rules.depth - 1)
        self.convs = nn.Sequential(
            *[ConvNorm(size, inner, norm=rules.norm, relu=True) for size in inputs]
        )
        self.objectness = nn.Conv2d(inner, rules.anchors.per_position, 1)
        self.deltas = nn.Conv2d(inner, rules.anchors.per_position * 4, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, levels: Sequence[Tensor]) -> AnchorScores:
        """Score the anchors of a pyramid, finest level first: (B, C, h, w) each."""
        logits, deltas, grids = [], [], []
        for feature_map in levels:
            x = self.convs(feature_map)
            # Anchors in the order row, column, shape.
            logits.append(self.objectness(x).permute(0, 2, 3, 1).flatten(1))
            deltas.append(self.deltas(x).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 4)))
            grids.append((x.shape[2], x.shape[3]))

        anchors = anchor_boxes(grids, self.rules.anchors, levels[0].device)
        return AnchorScores(
            torch.cat(logits, 1).float(),
            torch.cat(deltas, 1).float(),
            torch.cat(anchors),
            tuple(level.shape[0] for level in anchors),
        )

    @torch.no_grad()
    def propose(self, scores: AnchorScores, limits: Tensor) -> list[Proposals]:
        """Choose the proposals of each image.

        Args:
            scores: of `forward`.
            limits: (B, 2), height and width that the boxes of each image are clipped to.

        Returns:
            One `Proposals` per image.
        """
        rules = self.rules.training if self.training else self.rules.testing
        chosen, level_of = best_per_level(scores.logits, scores.counts, rules.before_nms)
        level_of = level_of.to(chosen.device)

        logits = scores.logits.gather(1, chosen)
        deltas = scores.deltas.gather(1, chosen[..., None].expand(-1, -1, 4))
        boxes = clip_to(apply_deltas(scores.anchors[chosen], deltas), limits[:, None])

        found = []
        for box, score in zip(boxes, logits.sigmoid(), strict=True):
            inside = has_area(box)
            box, score, level = box[inside], score[inside], level_of[inside]
            best = batched_nms(box, score, level, rules.overlap)[: rules.after_nms]
            found.append(Proposals(box[best], score[best]))
        return found

    def losses(
        self,
        scores: AnchorScores,
        annotated: Sequence[Tensor],
        priorities: Tensor | None = None,
        usable: Tensor | None = None,
        *,
        divisor: Divisor = own_rows,
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            scores: of `forward`.
            annotated: (G_i, 4) XYXY in pixels of each image; G_i may be 0.
            priorities: (B, A), which anchors train first; None draws them.
            usable: bool (B, A), anchors that may train; None is all.
            divisor: gives the divisor of sums over sampled anchors.

        Returns:
            `loss_rpn_cls` and `loss_rpn_bbox`, (L,) each: one value per level. Their sums train.
        """
        with torch.no_grad():
            matches = torch.stack(
                [match_boxes(scores.anchors, boxes, self.rules.match) for boxes in annotated]
            )
            if usable is not None:
                matches = matches.masked_fill(~usable, IGNORED)
            if priorities is None:
                priorities = draw_priorities(matches)
            sampled = sample_matches(matches, priorities, self.rules.sample)
        return proposal_losses(scores, annotated, matches, sampled, divisor=divisor)


def best_per_level(scores: Tensor, counts: Sequence[int], most: int) -> tuple[Tensor, Tensor]:
    """Choose the best places of each level.

    Args:
        scores: (B, A) of all levels.
        counts: places of each level; their sum is A.
        most: at most this number per level.

    Returns:
        Numbers of the places (B, k), and their levels (k,), on the CPU.
    """
    chosen, levels = [], []
    start = 0
    for level, values in enumerate(scores.split(list(counts), dim=1)):
        best = values.topk(min(most, values.shape[1]), dim=1).indices
        chosen.append(best + start)
        levels.append(torch.full((best.shape[1],), level))
        start += values.shape[1]
    return torch.cat(chosen, 1), torch.cat(levels)
