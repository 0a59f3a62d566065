"""Learning from captions: every region is compared with captions of this and of former steps.

Letters: R regions of a batch, T tiles of all its images, Q captions of the queue, n captions of
the batch, C embedding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NO_IMAGE = -1


@dataclass(frozen=True)
class CaptionRules:
    """The loss of captions.

    Attributes:
        temperature: of the cosines.
        weight: of the loss.
        negative_weight: of captions of other images.
        usual_regions: None averages over regions; a number divides by it instead.
        start_bias: start of a learned bias, or None for no bias.
        queue: number of former captions that are negatives as well (Q).

    Raises:
        ValueError: a number out of range.
    """

    temperature: float = 25.0
    weight: float = 0.1
    negative_weight: float = 0.125
    usual_regions: int | None = 4
    start_bias: float | None = -20.0
    queue: int = 256

    def __post_init__(self) -> None:
        numbers = (self.temperature, self.weight, self.negative_weight, self.usual_regions or 1)
        if min(numbers) <= 0 or self.queue < 0:
            raise ValueError(
                f"temperature={self.temperature}, weight={self.weight}, negative_weight="
                f"{self.negative_weight}, usual_regions={self.usual_regions}, queue={self.queue}; "
                "pass numbers above 0 and a queue of at least 0"
            )


@dataclass(frozen=True)
class Captions:
    """Captions of a batch.

    Attributes:
        features: (n, C) unit rows of the text tower.
        images: (n,) int64, number of the image of each, at least 0 and the same in every step.
    """

    features: Tensor
    images: Tensor


class CaptionQueue(nn.Module):
    """The newest captions, newest first. It is a part of the state dict, so a run can go on.

    Attributes:
        features: (Q, C).
        images: (Q,) int64, `NO_IMAGE` where there is no caption yet.
    """

    # Its buffers change in training, without a parameter.
    remembers = True
    features: Tensor
    images: Tensor

    def __init__(self, length: int, embed_dim: int):
        super().__init__()
        self.register_buffer("features", torch.zeros(length, embed_dim))
        self.register_buffer("images", torch.full((length,), NO_IMAGE, dtype=torch.int64))

    @torch.no_grad()
    def push(self, captions: Captions) -> None:
        """Put captions in front and drop the oldest."""
        length = len(self.images)
        features = torch.cat([captions.features.to(self.features), self.features])
        self.features.copy_(features[:length])
        images = torch.cat([captions.images.to(self.images), self.images])
        self.images.copy_(images[:length])


class CaptionLoss(nn.Module):
    """Binary cross-entropy of regions with captions, every positive caption of a region counted.

    A region matches the captions of all images that it covers, in this batch and in the queue. Its
    positives have the weight 1 together.

    Args:
        embed_dim: C.
        rules: see `CaptionRules`.

    Source: Detic, arXiv 2201.02605; groups: CLIM, arXiv 2312.11376.
    """

    def __init__(self, embed_dim: int, rules: CaptionRules):
        super().__init__()
        self.rules = rules
        self.queue = CaptionQueue(rules.queue, embed_dim)
        start = rules.start_bias
        self.bias = None if start is None else nn.Parameter(torch.tensor([float(start)]))

    def compare(
        self, features: Tensor, members: Tensor, images: Tensor, captions: Captions
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compare regions with all captions.

        Args:
            features: (R, C) of any length.
            members: bool (R, T), the tiles that each region covers.
            images: (T,) int64, number of the image of each tile.
            captions: of this batch.

        Returns:
            Logits (R, n + Q), bool labels (R, n + Q), and bool (n + Q,), which columns hold a
            caption.
        """
        columns = torch.cat([captions.features.to(self.queue.features), self.queue.features])
        owners = torch.cat([captions.images.to(self.queue.images), self.queue.images])
        logits = self.rules.temperature * F.normalize(features.float(), dim=-1) @ columns.T
        if self.bias is not None:
            logits = logits + self.bias
        same = images[:, None].to(owners) == owners  # (T, n + Q)
        return logits, (members.to(features) @ same.to(features)) > 0, owners != NO_IMAGE

    def forward(
        self,
        features: Tensor,
        members: Tensor,
        images: Tensor,
        captions: Captions,
        *,
        remember: bool = True,
    ) -> Tensor:
        """Compute the loss of a batch; 0 without regions or captions.

        Args:
            features, members, images, captions: see `compare`.
            remember: whether the captions enter the queue after the loss.
        """
        rules = self.rules
        logits, labels, filled = self.compare(features, members, images, captions)
        wanted = (labels & filled).to(logits)
        entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        positive = wanted / wanted.sum(1, keepdim=True).clamp(min=1)
        weights = positive + (1 - wanted) * rules.negative_weight * filled
        divisor = rules.usual_regions or max(len(features), 1)
        loss = (entropy * weights).sum() * rules.weight / divisor
        if remember:
            self.queue.push(captions)
        return loss
