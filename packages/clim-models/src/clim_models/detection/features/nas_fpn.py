"""NAS-FPN: a searched cell that merges levels, applied several times (arXiv 1904.07392).

Letters: B images, C channels, h w positions of a level. Levels are called p3 (finest) to p7.
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from clim_models.detection.features.conv import ConvNorm


class NASFPN(nn.Module):
    """Lateral 1x1 convolutions and `stacks` merging cells with weights of their own.

    Args:
        inputs: channels of the four maps, finest first.
        channels: C of all levels.
        stacks: number of cells.

    Raises:
        ValueError: another number of maps.
    """

    def __init__(self, inputs: Sequence[int], channels: int = 256, stacks: int = 7):
        super().__init__()
        if len(inputs) != 4:
            raise ValueError(f"{len(inputs)} maps; NAS-FPN merges four, p3 to p6")
        self.channels = channels
        self.laterals = nn.ModuleList([ConvNorm(size, channels, 1) for size in inputs])
        self.coarsest = ConvNorm(channels, channels, 1)
        self.stages = nn.ModuleList([MergingStage(channels) for _ in range(stacks)])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                nn.init.uniform_(module.weight, -math.sqrt(3 / fan_in), math.sqrt(3 / fan_in))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return five levels (B, C, h, w), finest first."""
        levels = [
            lateral(feature_map) for lateral, feature_map in zip(self.laterals, maps, strict=True)
        ]
        levels.append(F.max_pool2d(self.coarsest(levels[-1]), 2, 2))
        for stage in self.stages:
            levels = stage(levels)
        return levels


class MergingStage(nn.Module):
    """One cell: seven merges, each followed by ReLU, 3x3 convolution and batch norm."""

    def __init__(self, channels: int):
        super().__init__()
        self.attend_6_to_4 = MergeConv(channels)
        self.add_4_to_4 = MergeConv(channels)
        self.add_4_to_3 = MergeConv(channels)
        self.add_3_to_4 = MergeConv(channels)
        self.add_to_5 = MergeConv(channels)
        self.add_to_7 = MergeConv(channels)
        self.attend_7_to_6 = MergeConv(channels)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Five levels -> five levels of the same sizes."""
        p3, p4, p5, p6, p7 = levels
        first = self.attend_6_to_4(_attend(p6, p4, p4))
        second = self.add_4_to_4(first + p4)
        p3 = self.add_4_to_3(_resize(second, p3) + p3)
        p4 = self.add_3_to_4(_resize(p3, p4) + second)
        p5 = self.add_to_5(p5 + _attend(p4, p3, p5))
        p7 = self.add_to_7(p7 + _attend(p5, second, p7))
        p6 = self.attend_7_to_6(_attend(p7, p5, p6))
        return [p3, p4, p5, p6, p7]


class MergeConv(nn.Module):
    """ReLU, 3x3 convolution with bias, batch norm: what follows a merge."""

    def __init__(self, channels: int):
        super().__init__()
        self.layer = ConvNorm(channels, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        found: Tensor = self.layer(x.relu())
        return found


def _attend(other: Tensor, base: Tensor, like: Tensor) -> Tensor:
    """Add `other` to `base`, weighted per channel by the mean of `base`, at the size of `like`."""
    other, base = _resize(other, like), _resize(base, like)
    return base + base.mean((2, 3), keepdim=True).sigmoid() * other


def _resize(x: Tensor, like: Tensor) -> Tensor:
    """Resize to the size of another map: nearest upwards, max-pooling downwards."""
    rows, columns = like.shape[-2:]
    h, w = x.shape[-2:]
    if (h, w) == (rows, columns):
        return x
    if h < rows or w < columns:
        return F.interpolate(x, (rows, columns), mode="nearest")

    # Windows that do not divide the map reach into zeros on both sides.
    more_rows = -h % rows
    more_columns = -w % columns
    top, left = more_rows // 2, more_columns // 2
    padded = F.pad(x, (left, more_columns - left, top, more_rows - top))
    window = (padded.shape[-2] // rows, padded.shape[-1] // columns)
    return F.max_pool2d(padded, window, window)
