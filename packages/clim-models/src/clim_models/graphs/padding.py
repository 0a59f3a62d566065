"""Convolutions with TensorFlow's "same" padding, in the form that a graph for any size needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn


@contextmanager
def fixed_padding(tower: nn.Module) -> Iterator[None]:
    """Let the convolutions of a tower pad by fixed numbers inside the block.

    Their padding follows from the size of the picture by a formula that torch.export takes minutes
    to simplify. Sides that are multiples of the tower's stride are multiples of every convolution's
    own, and the formula then always gives the same numbers.
    """
    changed = [module for module in tower.modules() if isinstance(module, Conv2dSame)]
    try:
        for module in changed:
            # The instance's own attribute hides the method of the class.
            module.__dict__["forward"] = partial(_convolve, module)
        yield
    finally:
        for module in changed:
            module.__dict__.pop("forward", None)


def _convolve(module: Conv2dSame, x: Tensor) -> Tensor:
    """Pad by kernel size less stride, the smaller half first, and convolve."""
    padding: list[int] = []
    # Padding begins with the last axis.
    for side in (1, 0):
        reach = (module.kernel_size[side] - 1) * module.dilation[side] + 1
        total = max(reach - module.stride[side], 0)
        padding += [total // 2, total - total // 2]
    padded = F.pad(x, padding)
    return F.conv2d(
        padded, module.weight, module.bias, module.stride, 0, module.dilation, module.groups
    )
