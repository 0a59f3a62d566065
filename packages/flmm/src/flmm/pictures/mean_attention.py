"""The attention of each phrase as one map over the image, for people to look at. Masks are made
from all maps."""

import torch
from torch import Tensor
from torch.nn import functional as F

from flmm.adapters.features import PhraseFeatures

FINER = 4


def mean_attention(features: PhraseFeatures) -> Tensor:
    """Average the attention to the image over layers and heads -> float32 (N, h, w).

    The map of each head is divided by its sum first. Otherwise heads that look at nothing but the
    image would hide the others. The result covers the image without padding. Its grid is `FINER`
    times as fine as the grid of tokens, because padding can end within a token.
    """
    totals = features.maps.sum(dim=(-2, -1), keepdim=True).clamp_min(
        torch.finfo(torch.float32).tiny
    )
    mean = (features.maps / totals).mean(dim=1, keepdim=True)  # (N, 1, h, w) of the tokens
    finer = F.interpolate(mean, scale_factor=FINER, mode="bilinear", align_corners=False)[:, 0]
    return features.layout.crop(finer)
