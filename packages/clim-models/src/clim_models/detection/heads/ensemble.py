"""Scores of a detector and of its frozen CLIP, combined.

Letters: R boxes, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class EnsembleRules:
    """Weights of CLIP's scores in the geometric mean.

    Attributes:
        base: exponent of CLIP's probability for base classes and the background (alpha).
        novel: the same for all other classes (beta). Equal exponents are the transfer head.
        temperature: of CLIP's cosines.

    Raises:
        ValueError: an exponent outside [0, 1] or a temperature that is not positive.
    """

    base: float
    novel: float
    temperature: float

    def __post_init__(self) -> None:
        if not (0 <= self.base <= 1 and 0 <= self.novel <= 1 and self.temperature > 0):
            raise ValueError(
                f"base={self.base}, novel={self.novel}, temperature={self.temperature}; "
                "pass exponents from 0 to 1 and a temperature above 0"
            )


def combine_scores(
    detector_logits: Tensor, clip_cosines: Tensor, is_base: Tensor, rules: EnsembleRules
) -> Tensor:
    """Combine detector and CLIP: p^(1 - w) q^w, p and q softmaxes over all columns.

    Scores are not normalised again, so a row does not sum to 1.

    Args:
        detector_logits: (R, K + 1), background last.
        clip_cosines: (R, K + 1), cosines of CLIP's feature of the box with the same columns.
        is_base: bool (K,); w is `rules.base` there and for the background, else `rules.novel`.
        rules: exponents and temperature.

    Returns:
        (R, K + 1), background last.

    Source: F-VLM (arXiv 2209.15639), equation 1.
    """
    weights = torch.where(is_base, rules.base, rules.novel)
    background = weights.new_full((1,), rules.base)
    weights = torch.cat([weights, background]).to(detector_logits.device)

    detector = detector_logits.float().softmax(-1)
    clip = (rules.temperature * clip_cosines.float()).softmax(-1)
    return detector ** (1 - weights) * clip**weights
