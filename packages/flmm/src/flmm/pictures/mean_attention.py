"""The attention of each phrase as one map over the image, for people to look at; masks are made of
all maps."""

import torch
from torch import Tensor
from torch.nn import functional as F

from flmm.adapters.features import PhraseFeatures

FINER = 4


def mean_attention(features: PhraseFeatures) -> Tensor:
    """Return the mean over layers and heads of each one's shares of its attention to the image:
    float32 (N, h, w).

    Shares, because a head that hardly looks at the image would not be seen beside one that looks at
    nothing else. The map covers the image without padding, on a grid `FINER` times that of the
    tokens: padding ends within a token.
    """
    totals = features.maps.sum(dim=(-2, -1), keepdim=True).clamp_min(
        torch.finfo(torch.float32).tiny
    )
    mean = (features.maps / totals).mean(dim=1, keepdim=True)  # (N, 1, h, w) of the tokens
    finer = F.interpolate(mean, scale_factor=FINER, mode="bilinear", align_corners=False)[:, 0]
    return features.layout.crop(finer)
