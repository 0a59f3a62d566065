"""Feature pyramid with two coarser levels (arXiv 1612.03144, 1708.02002).

Letters: B images, C channels, h w positions of a level.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from clim_models.detection.features.fpn import add_coarser


class CoarseFPN(nn.Module):
    """Lateral 1x1 and output 3x3 convolutions, and two convolutions that halve the coarsest level.

    Args:
        inputs: channels of each map, finest first.
        channels: C of all levels.
    """

    def __init__(self, inputs: Sequence[int], channels: int = 256):
        super().__init__()
        self.channels = channels
        self.laterals = nn.ModuleList([nn.Conv2d(size, channels, 1) for size in inputs])
        self.outputs = nn.ModuleList([nn.Conv2d(channels, channels, 3, padding=1) for _ in inputs])
        self.coarser = nn.ModuleList(
            [nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(2)]
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                bound = math.sqrt(3 / module.weight[0].numel())
                nn.init.uniform_(module.weight, -bound, bound)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return two levels more than there are maps: (B, C, h, w) each, finest first."""
        laterals = [layer(one) for layer, one in zip(self.laterals, maps, strict=True)]
        merged = add_coarser(laterals)
        levels = [layer(one) for layer, one in zip(self.outputs, merged, strict=True)]
        sixth = self.coarser[0](levels[-1])
        return [*levels, sixth, self.coarser[1](sixth.relu())]
