"""ResNet as the backbone of a detector that trains it, with frozen batch norms.

Letters: B images, C channels, h w positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck
from torchvision.ops import FrozenBatchNorm2d

EXPANSION = 4


@dataclass(frozen=True)
class ResNetRules:
    """Layers of a ResNet.

    Attributes:
        blocks: of each stage; 3, 4, 6, 3 is ResNet-50.
        width: channels of the stem.
        stride_in_1x1: whether the first convolution of a stage is the one that halves the map, as
            in weights of Caffe (MSRA). In weights of torchvision and timm it is the second.
        frozen: number of stages that do not train, the stem with them; 0 trains everything.

    Raises:
        ValueError: no stage, or more frozen stages than there are.
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    stride_in_1x1: bool = False
    frozen: int = 0

    def __post_init__(self) -> None:
        if not self.blocks or not 0 <= self.frozen <= len(self.blocks):
            raise ValueError(
                f"blocks={self.blocks}, frozen={self.frozen}; pass at least one stage, and at most "
                "this number of frozen ones"
            )


class ResNet(nn.Module):
    """Stem and stages under the names of torchvision; gain and bias of norms never train.

    Attributes:
        channels: of the map of each stage.

    Source: arXiv 1512.03385.
    """

    def __init__(self, rules: ResNetRules):
        super().__init__()
        self.conv1 = nn.Conv2d(3, rules.width, 7, stride=2, padding=3, bias=False)
        self.bn1 = FrozenBatchNorm2d(rules.width)
        inputs, self.stages = rules.width, []
        for number, blocks in enumerate(rules.blocks):
            planes = rules.width * 2**number
            stage = build_stage(inputs, planes, blocks, number > 0, rules.stride_in_1x1)
            self.add_module(f"layer{number + 1}", stage)
            self.stages.append(f"layer{number + 1}")
            inputs = planes * EXPANSION
        self.channels = tuple(rules.width * 2**i * EXPANSION for i in range(len(rules.blocks)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if rules.frozen:
            self.conv1.requires_grad_(False)
        for name in self.stages[: rules.frozen]:
            self.get_submodule(name).requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the map of each stage: (B, 3, H, W) -> (B, C_i, h_i, w_i), finest first."""
        x = F.max_pool2d(self.bn1(self.conv1(images)).relu(), 3, stride=2, padding=1)
        maps: list[Tensor] = []
        for name in self.stages:
            x = self.get_submodule(name)(x)
            maps.append(x)
        return maps


def build_stage(
    inputs: int, planes: int, blocks: int, halve: bool, stride_in_1x1: bool
) -> nn.Sequential:
    """Build one stage of bottlenecks.

    Args:
        inputs: channels of the map before.
        planes: channels inside a block; the map has four times as many.
        blocks: number of blocks.
        halve: whether the stage halves the map.
        stride_in_1x1: see `ResNetRules`.
    """
    stride, outputs = 1 + halve, planes * EXPANSION
    shortcut = nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), FrozenBatchNorm2d(outputs)
    )
    first = Bottleneck(inputs, planes, stride, shortcut, norm_layer=FrozenBatchNorm2d)
    if stride_in_1x1:
        first.conv1.stride, first.conv2.stride = (stride, stride), (1, 1)
    rest: Sequence[nn.Module] = [
        Bottleneck(outputs, planes, norm_layer=FrozenBatchNorm2d) for _ in range(blocks - 1)
    ]
    return nn.Sequential(first, *rest)
