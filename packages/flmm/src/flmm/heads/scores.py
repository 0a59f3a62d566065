"""Confidence of a grounding from its masks alone, without training.

Letters: N phrases of an image, p q size of coarse logits, H W pixels of the image.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def mask_agreement(coarse: Tensor, refined: Tensor) -> Tensor:
    """Compute the IoU of coarse and refined masks on the grid of the coarse ones -> (N,) in [0, 1].

    A cell of the grid counts with the fraction of its pixels that the refined mask covers. Two
    empty masks have 0.

    Args:
        coarse: logits (N, p, q). refined: logits (N, H, W); positive is inside.
    """
    if not len(coarse):
        return coarse.new_zeros(0, dtype=torch.float32)
    grid = coarse.shape[1], coarse.shape[2]
    covered = F.adaptive_avg_pool2d((refined > 0).float()[None], grid)[0]  # (N, p, q)
    inside = (coarse > 0).float()
    both = torch.minimum(covered, inside).sum((1, 2))
    either = torch.maximum(covered, inside).sum((1, 2))
    return both / either.clamp(min=torch.finfo(torch.float32).tiny)


def geometric_scores(coarse: Tensor, refined: Tensor, ious: Tensor) -> Tensor:
    """Score masks by their geometry -> (N,) in [0, 1].

    It is the geometric mean of the IoU that the refiner expects and of `mask_agreement`; 0 for an
    empty mask. It measures the agreement of two stages, and not the probability that the phrase is
    present.

    Args:
        ious: (N,) in [0, 1], of the refiner.
    """
    agreement = mask_agreement(coarse, refined)
    return (ious.float() * agreement).sqrt()
