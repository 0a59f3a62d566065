"""A text classifier with independent classes, and its losses.

Letters: R boxes, K classes, C embedding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clim_models.detection.heads.text_classifier import Background, TextClassifier
from clim_models.losses.federated import federated_class_weights


@dataclass(frozen=True)
class SigmoidRules:
    """Rules for the comparison of regions with classes.

    Attributes:
        temperature: of the cosines.
        start_bias: start of a learned bias of all logits, or None for no bias.
        bias_in_training_only: compute scores without the bias. Released OV-COCO detectors of Detic
            + CLIM do so; many of their scores are exactly 1.

    Raises:
        ValueError: a temperature that is not positive, or an option without effect.
    """

    temperature: float = 25.0
    start_bias: float | None = None
    bias_in_training_only: bool = False

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature}; pass a number above 0")
        if self.bias_in_training_only and self.start_bias is None:
            raise ValueError("bias_in_training_only without a bias; pass start_bias=-20.0 or False")


class SigmoidClassifier(nn.Module):
    """One linear layer to the embedding, and independent probabilities of all classes.

    The background has a zero embedding: its logit is the bias.

    Args:
        inputs: channels of a box feature.
        embed_dim: C.
        rules: see `SigmoidRules`.
    """

    def __init__(self, inputs: int, embed_dim: int, rules: SigmoidRules):
        super().__init__()
        self.rules = rules
        self.project = nn.Linear(inputs, embed_dim)
        background = Background("zero", embed_dim)
        self.compare = TextClassifier(background, rules.temperature, fixed_temperature=True)
        start = rules.start_bias
        self.bias = None if start is None else nn.Parameter(torch.tensor([float(start)]))
        nn.init.normal_(self.project.weight, std=0.01)
        nn.init.zeros_(self.project.bias)

    def logits(self, features: Tensor, embeddings: Tensor) -> Tensor:
        """Compare region embeddings with classes.

        Args:
            features: (R, C) of any length.
            embeddings: (K, C) unit rows.

        Returns:
            (R, K + 1), background last.
        """
        found: Tensor = self.compare(features, embeddings)
        if self.bias is None or (self.rules.bias_in_training_only and not self.training):
            return found
        return found + self.bias

    def forward(self, x: Tensor, embeddings: Tensor) -> Tensor:
        """Classify box features: (R, inputs), (K, C) -> logits (R, K + 1), background last."""
        return self.logits(self.project(x), embeddings)


def sigmoid_loss(
    logits: Tensor, labels: Tensor, weights: Tensor, box_weights: Tensor | None = None
) -> Tensor:
    """Sum the binary cross-entropy over classes and divide it by the number of boxes.

    Args:
        logits: (R, K + 1), background last.
        labels: (R,) int64; the background has the label K and no positive column.
        weights: (K + 1,) of the columns.
        box_weights: (R,); boxes of weight 0 do not count. None is 1 for all.
    """
    targets = _one_hot(labels, logits)
    entropy = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
    entropy = entropy * weights
    if box_weights is None:
        return entropy.sum() / max(len(labels), 1)
    return (entropy * box_weights[:, None]).sum() / (box_weights > 0).sum().clamp(min=1)


def federated_keys(image_counts: Tensor, power: float = 0.5) -> Tensor:
    """Draw one number per class: the smallest are a draw without repetition.

    Class k is drawn in proportion to image_counts_k^power. A class without images comes last.

    Args:
        image_counts: (K,), number of training images of each class.
        power: 0 makes all classes with images equally likely.

    Returns:
        (K,) float32, inf for a class without images.
    """
    likely = torch.where(image_counts > 0, image_counts.float() ** power, 0.0)
    # The first of exponential clocks with rates p rings with a probability in proportion to p.
    return torch.empty_like(likely).exponential_() / likely


def federated_classes(
    labels: Tensor, keys: Tensor, number: int, *, count_background: bool = False
) -> Tensor:
    """Choose the classes in the questions about the boxes of a step.

    These are the classes of the boxes, and others until there are `number`.

    Args:
        labels: (R,) int64; K is the background.
        keys: (K,) of `federated_keys`.
        number: at least this number of classes, if there are as many.
        count_background: whether the background counts as one of them, as in the published runs.

    Returns:
        float32 (K + 1,), 1 for classes that are asked, and 0 for the background.

    Source: federated loss, Zhou et al., arXiv 2103.07461, section 5.
    """
    classes = len(keys)
    present = torch.zeros(classes + 1, dtype=torch.bool, device=keys.device)
    present[labels] = True
    if not count_background:
        present[classes] = False
    never = keys.new_full((1,), torch.inf)
    keys = torch.cat([keys, never])
    asked = federated_class_weights(present, keys, number)
    asked = asked * (present | keys.isfinite())
    asked[classes] = 0
    return asked


def _one_hot(labels: Tensor, logits: Tensor) -> Tensor:
    """Return float32 (R, K + 1) without a 1 for the background."""
    targets = torch.zeros_like(logits, dtype=torch.float32)
    targets.scatter_(1, labels[:, None], 1.0)
    targets[:, -1] = 0
    return targets
