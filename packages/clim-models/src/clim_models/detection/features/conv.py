"""Convolution with batch norm, the brick of necks and heads."""

from torch import Tensor, nn


class ConvNorm(nn.Module):
    """Convolution, optional batch norm, optional ReLU.

    With a norm the convolution has no bias, unless `bias` says so. In a training on several devices
    `nn.SyncBatchNorm.convert_sync_batchnorm` makes the norms count all images.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int = 3,
        *,
        norm: bool = True,
        relu: bool = False,
        bias: bool | None = None,
    ):
        super().__init__()
        has_bias = not norm if bias is None else bias
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=has_bias)
        self.norm = nn.BatchNorm2d(outputs) if norm else nn.Identity()
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w)."""
        found: Tensor = self.relu(self.norm(self.conv(x)))
        return found
