"""Maps of four blocks of a ViT, brought to four strides.

Letters: B images, D width of the tower, h w patches.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

# Strides of the levels, in patches.
SCALES = (0.25, 0.5, 1.0, 2.0)


class ViTPyramid(nn.Module):
    """Transposed convolutions to a quarter and a half of the patch, and pooling to twice the patch.

    Transposed convolutions have torch's own initialisation.

    Source: ViTDet's simple pyramid (arXiv 2203.16527), as F-ViT (arXiv 2310.01403) uses it.
    """

    def __init__(self, width: int):
        super().__init__()
        self.to_quarter = nn.Sequential(
            nn.ConvTranspose2d(width, width, 2, 2),
            nn.BatchNorm2d(width),
            nn.GELU(),
            nn.ConvTranspose2d(width, width, 2, 2),
        )
        self.to_half = nn.ConvTranspose2d(width, width, 2, 2)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Four maps (B, D, h, w) -> (B, D, 4h, 4w), (B, D, 2h, 2w), (B, D, h, w), (B, D, h/2, w/2).

        The last is rounded down.
        """
        first, second, third, fourth = maps
        return [self.to_quarter(first), self.to_half(second), third, F.max_pool2d(fourth, 2, 2)]
