"""Losses of one stage of a cascade.

Letters: R sampled boxes of all images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clim_models.detection.heads.losses import accuracy
from clim_models.detection.heads.sigmoid import federated_classes, sigmoid_loss
from clim_models.detection.heads.targets import SampledBoxes


@dataclass(frozen=True)
class CascadeLossRules:
    """Losses of a stage.

    Attributes:
        asked: number of classes that a step is asked about.
        count_background: whether the background counts as one of them, as in published runs.
        beta: distance of deltas below which the loss is quadratic.

    Raises:
        ValueError: a number that is not positive.
    """

    asked: int = 50
    count_background: bool = False
    beta: float = 0.1

    def __post_init__(self) -> None:
        if self.asked < 1 or self.beta <= 0:
            raise ValueError(f"asked={self.asked}, beta={self.beta}; pass numbers above 0")


def stage_losses(
    logits: Tensor,
    deltas: Tensor,
    sampled: Sequence[SampledBoxes],
    keys: Tensor,
    rules: CascadeLossRules,
) -> dict[str, Tensor]:
    """Compute `loss_cls`, `loss_bbox` and `acc` of a stage.

    Args:
        logits: (R, K + 1), background last.
        deltas: (R, 4).
        sampled: boxes of each image.
        keys: (K,) of `federated_keys`.
        rules: see `CascadeLossRules`.
    """
    labels = torch.cat([one.labels for one in sampled])
    targets = torch.cat([one.targets for one in sampled])
    number = max(len(labels), 1)
    asked = federated_classes(labels, keys, rules.asked, count_background=rules.count_background)
    distance = F.smooth_l1_loss(deltas.float(), targets, reduction="none", beta=rules.beta)
    positive = (labels < len(keys))[:, None]
    return {
        "loss_cls": sigmoid_loss(logits, labels, asked),
        "loss_bbox": (distance * positive).sum() / number,
        "acc": accuracy(logits, labels),
    }
