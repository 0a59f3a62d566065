"""Proposal network that finds centres of boxes on five levels.

Letters: B images, C channels, L levels, P positions of all levels, n_i proposals of image i.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from clim_models.detection.heads.heatmap import (
    Grid,
    HeatmapRules,
    heatmap_losses,
    heatmap_targets,
    lay_grid,
)
from clim_models.detection.heads.losses import Divisor, own_rows
from clim_models.detection.heads.rpn import ProposalRules, Proposals, best_per_level

DEPTH = 4
# Probability of a centre at the start of training.
PRIOR = 0.01
# Proposals need a higher probability, and are at least this number of pixels long.
LEAST_SCORE = 1e-4
LEAST_SIDE = 0.01


@dataclass(frozen=True)
class CentreRules:
    """Rules of a proposal network of centres.

    Attributes:
        heatmap: targets and losses.
        training, testing: how proposals are chosen; `before_nms` counts per level.
        groups: of the group norms.
    """

    heatmap: HeatmapRules = field(default_factory=HeatmapRules)
    training: ProposalRules = field(default_factory=lambda: ProposalRules(4000, 2000, 0.9))
    testing: ProposalRules = field(default_factory=lambda: ProposalRules(1000, 256, 0.9))
    groups: int = 32


@dataclass(frozen=True)
class CentreScores:
    """The output of the network at every position.

    Attributes:
        logits: (B, P).
        distances: (B, P, 4), left, top, right, bottom in strides.
        grid: the positions.
        counts: positions of each level.
    """

    logits: Tensor
    distances: Tensor
    grid: Grid
    counts: tuple[int, ...]


class CentreNetwork(nn.Module):
    """Four convolutions with group norms, then heat and distances of each position.

    Args:
        channels: C.
        rules: see `CentreRules`.

    Source: CenterNet2, arXiv 2103.07461.
    """

    def __init__(self, channels: int, rules: CentreRules):
        super().__init__()
        self.rules = rules
        layers: list[nn.Module] = []
        for _ in range(DEPTH):
            layers += [nn.Conv2d(channels, channels, 3, padding=1)]
            layers += [nn.GroupNorm(rules.groups, channels), nn.ReLU()]
        self.convs = nn.Sequential(*layers)
        self.heat = nn.Conv2d(channels, 1, 3, padding=1)
        self.distances = nn.Conv2d(channels, 4, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(rules.heatmap.strides)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        assert self.heat.bias is not None
        nn.init.constant_(self.heat.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, levels: Sequence[Tensor]) -> CentreScores:
        """Score the positions of a pyramid, finest level first: (B, C, h, w) each."""
        logits, distances, sizes = [], [], []
        for feature_map, scale in zip(levels, self.scales, strict=True):
            x = self.convs(feature_map)
            logits.append(self.heat(x).flatten(1))
            sides = (scale * self.distances(x)).relu()
            distances.append(sides.flatten(2).transpose(1, 2))
            sizes.append((x.shape[2], x.shape[3]))
        grid = lay_grid(sizes, self.rules.heatmap.strides, levels[0].device)
        return CentreScores(
            torch.cat(logits, 1).float(),
            torch.cat(distances, 1).float(),
            grid,
            tuple(rows * columns for rows, columns in sizes),
        )

    @torch.no_grad()
    def propose(self, scores: CentreScores) -> list[Proposals]:
        """Choose the proposals of each image; they are not clipped to it."""
        rules = self.rules.training if self.training else self.rules.testing
        sides = scores.distances * scores.grid.strides[:, None]
        low = scores.grid.centres - sides[..., :2]
        high = torch.maximum(scores.grid.centres + sides[..., 2:], low + LEAST_SIDE)
        boxes = torch.cat([low, high], -1)

        heats = scores.logits.sigmoid()
        chosen_places, _ = best_per_level(heats, scores.counts, rules.before_nms)
        found = []
        for box, heat, best in zip(boxes, heats, chosen_places, strict=True):
            best = best[heat[best] > LEAST_SCORE]
            box, score = box[best], heat[best].sqrt()
            chosen = nms(box, score, rules.overlap)[: rules.after_nms]
            found.append(Proposals(box[chosen], score[chosen]))
        return found

    def losses(
        self, scores: CentreScores, annotated: Sequence[Tensor], *, divisor: Divisor = own_rows
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch: see `heatmap_losses`."""
        rules = self.rules.heatmap
        targets = [heatmap_targets(scores.grid, boxes, rules) for boxes in annotated]
        return heatmap_losses(scores.logits, scores.distances, targets, rules, divisor=divisor)
