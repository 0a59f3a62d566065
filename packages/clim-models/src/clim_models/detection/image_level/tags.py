"""Learning classes from tags: every region of an image that has a tag is asked about all classes.

Letters: R regions of a batch, T tiles of all its images, K classes, C embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class TagRules:
    """The loss of tags.

    Attributes:
        temperature: of the cosines.
        weight: of the loss.
        negative_weight: of classes that are no tags.
        usual_regions: None averages over regions; a number divides by it instead.
        start_bias: start of a learned bias, or None for no bias.

    Raises:
        ValueError: a number that is not positive.
    """

    temperature: float = 25.0
    weight: float = 0.1 / 3
    negative_weight: float = 1.0
    usual_regions: int | None = None
    start_bias: float | None = -20.0

    def __post_init__(self) -> None:
        numbers = (self.temperature, self.weight, self.negative_weight, self.usual_regions or 1)
        if min(numbers) <= 0:
            raise ValueError(
                f"temperature={self.temperature}, weight={self.weight}, negative_weight="
                f"{self.negative_weight}, usual_regions={self.usual_regions}; pass numbers above 0"
            )


def tag_targets(tags: Sequence[Sequence[int]], num_classes: int) -> Tensor:
    """Mark the tags of each tile: T lists of labels -> bool (T, K)."""
    targets = torch.zeros(len(tags), num_classes, dtype=torch.bool)
    for tile, labels in enumerate(tags):
        targets[tile, list(labels)] = True
    return targets


def any_member(members: Tensor, marks: Tensor) -> Tensor:
    """Mark what any member of each region has: bool (R, T), (T, K) -> bool (R, K)."""
    return (members.float() @ marks.float()) > 0


class TagLoss(nn.Module):
    """Binary cross-entropy of regions with all classes; a group has the tags of all its tiles.

    Args:
        rules: see `TagRules`.

    Source: Detic, arXiv 2201.02605; groups: CLIM, arXiv 2312.11376.
    """

    def __init__(self, rules: TagRules):
        super().__init__()
        self.rules = rules
        start = rules.start_bias
        self.bias = None if start is None else nn.Parameter(torch.tensor([float(start)]))

    def forward(self, features: Tensor, embeddings: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of a batch; 0 without regions.

        Args:
            features: (R, C) of any length.
            embeddings: (K, C) unit rows.
            targets: bool (R, K).
        """
        rules = self.rules
        logits = rules.temperature * F.normalize(features.float(), dim=-1) @ embeddings.float().T
        if self.bias is not None:
            logits = logits + self.bias
        wanted = targets.to(logits)
        entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        weights = wanted + (1 - wanted) * rules.negative_weight
        divisor = rules.usual_regions or max(len(features), 1)
        return (entropy * weights).sum() * rules.weight / divisor
