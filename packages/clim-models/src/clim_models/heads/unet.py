"""A small U-Net that turns a phrase's attention maps into one mask (F-LMM, arXiv 2406.05821).

Letters: N phrases, C attention maps of a phrase (layers x heads), h w their grid, H W the grid
after enlarging. The architecture is mmsegmentation's U-Net (arXiv 1505.04597) with GroupNorm over
all channels and bilinear upsampling.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import Conv2dNormActivation

# One group of all channels: statistics over (C, H, W) of a phrase, so the phrases of a batch do not
# depend on each other.
_conv = partial(Conv2dNormActivation, norm_layer=partial(nn.GroupNorm, 1), activation_layer=nn.ReLU)


class DecoderStage(nn.Module):
    """Step that doubles a map, halves its channels and merges it with the encoder's map."""

    def __init__(self, channels: int):
        super().__init__()
        self.reduce = _conv(2 * channels, channels, 1)
        self.fuse = _double_conv(2 * channels, channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(N, 2c, H/2, W/2) and (N, c, H, W) -> (N, c, H, W)."""
        # Interpolating in bfloat16 would quantise the weights of the four neighbours.
        larger = F.interpolate(x.float(), scale_factor=2, mode="bilinear", align_corners=False)
        reduced = self.reduce(larger.to(x.dtype))
        return self.fuse(torch.cat([skip, reduced], dim=1))


class UNetHead(nn.Module):
    """U-Net from the attention maps of a phrase to the logits of its mask.

    All phrases are one batch.

    Args:
        in_channels: C, the number of maps of a phrase.
        base: channels of the first stage; each further stage has twice as many.
        stages: resolutions of the U-Net, at least 2.
        normalize_input: divide every map by its sum over positions (a map of zeros stays zero).
        upsample_input: enlarge inputs whose longer edge is shorter than this, after normalising.
            The factor is upsample_input / longer edge. An edge becomes the whole part of edge *
            factor, in floating point: 49 becomes 63, not 64. None never enlarges.

    Parameters start as Kaiming normal (fan out, ReLU) and zero biases, also in the last
    convolution.

    Raises:
        ValueError: a number that is too small for a U-Net.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        base: int = 64,
        stages: int = 4,
        normalize_input: bool = True,
        upsample_input: int | None = 64,
    ):
        super().__init__()
        for name, value, least in (
            ("in_channels", in_channels, 1),
            ("base", base, 1),
            ("stages", stages, 2),
        ):
            if value < least:
                raise ValueError(f"{name}={value!r} is not possible: pass {least} or more")
        if upsample_input is not None and upsample_input < 1:
            raise ValueError(
                f"upsample_input={upsample_input!r} is not possible: pass an edge of 1 or more, or "
                "None"
            )
        self.in_channels = in_channels
        self.normalize_input = normalize_input
        self.upsample_input = upsample_input
        self.grad_checkpointing = False

        widths = [base * 2**i for i in range(stages)]
        inputs = [in_channels, *widths[:-1]]
        self.encoder = nn.ModuleList(_double_conv(a, b) for a, b in zip(inputs, widths))
        self.decoder = nn.ModuleList(DecoderStage(width) for width in widths[:-1])
        self.predict = nn.Conv2d(base, 1, 1)
        self._initialise()

    def forward(self, attention: Tensor) -> Tensor:
        """Predict masks: (N, C, h, w) maps -> (N, H, W) logits.

        H W are h w, or their enlarged sizes (`upsample_input`). N may be 0. The dtype is that of
        the weights.

        Raises:
            ValueError: another number of maps, or, with `normalize_input`, values outside [0, 1].
                Values are checked on the CPU only; a GPU would have to wait.
        """
        self._check(attention)
        x = self._prepare(attention).to(self.predict.weight.dtype)  # (N, C, H, W)

        # Every stage halves the map, so it is padded to a multiple first.
        height, width = x.shape[-2:]
        multiple = 2 ** len(self.decoder)
        x = F.pad(x, (0, -width % multiple, 0, -height % multiple))

        skips: list[Tensor] = []
        for stage in self.encoder:
            if skips:
                x = F.max_pool2d(x, 2)
            x = self._run(stage, x)  # (N, base 2^level, H / 2^level, W / 2^level)
            skips.append(x)
        for stage, skip in zip(reversed(self.decoder), reversed(skips[:-1]), strict=True):
            x = self._run(stage, x, skip)
        return self.predict(x[..., :height, :width]).squeeze(1)  # (N, H, W)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if self.predict.bias is not None:
            nn.init.zeros_(self.predict.bias)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass.

        Takes less memory and about a third more time, and gives the same numbers.
        """
        self.grad_checkpointing = enable

    def _prepare(self, attention: Tensor) -> Tensor:
        """Normalise and enlarge maps: (N, C, h, w) -> (N, C, H, W)."""
        # In float32: a sum of hundreds of small weights loses its digits in 16 bits.
        x = attention.float()
        if self.normalize_input:
            x = x / x.sum(dim=(-2, -1), keepdim=True).clamp(min=1e-12)

        factor = 1.0 if self.upsample_input is None else self.upsample_input / max(x.shape[-2:])
        if factor > 1:
            x = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
        return x

    def _check(self, attention: Tensor) -> None:
        """Reject maps of another shape or range."""
        if (
            attention.ndim != 4
            or attention.shape[1] != self.in_channels
            or 0 in attention.shape[2:]
        ):
            raise ValueError(
                f"attention has shape {tuple(attention.shape)}; "
                f"pass (N, {self.in_channels}, h, w): "
                "one map for each layer and head this UNetHead was built for"
            )
        if self.normalize_input and attention.device.type == "cpu" and attention.numel():
            low, high = attention.min().item(), attention.max().item()
            if low != low:
                raise ValueError(
                    "attention is not finite: the LMM overflows in this precision (load it in "
                    "float32), or its weights are damaged"
                )
            if not (low >= 0 and high <= 1):
                raise ValueError(
                    f"attention has values from {low:.4g} to {high:.4g}; pass attention weights in "
                    "[0, 1], or build UNetHead(..., normalize_input=False)"
                )

    def _run(self, stage: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Run a stage, with checkpointing if it is on and there is a backward pass."""
        if self.grad_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(stage, *inputs, use_reentrant=False)
        return stage(*inputs)


def _double_conv(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(_conv(in_channels, channels, 3), _conv(channels, channels, 3))
