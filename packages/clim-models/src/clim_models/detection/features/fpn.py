"""Feature pyramid network with batch norms (arXiv 1612.03144).

Letters: B images, C channels, h w positions of a level.
"""

from collections.abc import Sequence
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from clim_models.detection.features.conv import ConvNorm


class Neck(Protocol):
    """The interface of a neck, which turns the maps of a backbone into the five levels that heads
    read."""

    channels: int

    def __call__(self, maps: Sequence[Tensor]) -> list[Tensor]: ...


def add_coarser(maps: Sequence[Tensor]) -> list[Tensor]:
    """Add to each map the sum of all coarser ones, resized to the nearest position.

    Args:
        maps: (B, C, h, w) of each level, finest first.
    """
    merged = list(maps)
    for i in range(len(merged) - 1, 0, -1):
        size = merged[i - 1].shape[-2:]
        merged[i - 1] = merged[i - 1] + F.interpolate(merged[i], size, mode="nearest")
    return merged


class FPN(nn.Module):
    """Lateral 1x1 convolutions, sums from coarse to fine, 3x3 convolutions, and one coarser level.

    Args:
        inputs: channels of each map, finest first.
        channels: C of all levels.
    """

    def __init__(self, inputs: Sequence[int], channels: int = 256):
        super().__init__()
        self.channels = channels
        self.laterals = nn.ModuleList([ConvNorm(size, channels, 1) for size in inputs])
        self.outputs = nn.ModuleList([ConvNorm(channels, channels) for _ in inputs])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return one level more than there are maps: (B, C, h, w) each, finest first."""
        laterals = [
            lateral(feature_map) for lateral, feature_map in zip(self.laterals, maps, strict=True)
        ]
        merged = add_coarser(laterals)
        levels = [output(x) for output, x in zip(self.outputs, merged, strict=True)]
        # Every second position of the coarsest level.
        return [*levels, F.max_pool2d(levels[-1], 1, stride=2)]
