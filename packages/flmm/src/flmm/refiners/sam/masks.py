"""From the tokens and positions of SAM's two-way transformer to masks.

Letters: N phrases, P = h x w positions of the grid, p positions of one part, D channels, K masks.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PIXELS = 16  # of a position, 4 x 4


def pixels_of_parts(
    decoder: Any, parts: Iterable[Tensor], finer: Sequence[Tensor] = ()
) -> Iterable[Tensor]:
    """Enlarge positions (N, p, D) to 4 x 4 pixels each.

    Transposed convolutions of stride and size 2 give every position four pixels of its own, so they
    are linear maps of positions.

    Args:
        finer: of SAM 2, (N or 1, P, 4, D / 4) and (N or 1, P, 16, D / 8), added to the pixels.

    Yields:
        (N, p, 16, D / 8), row by row: the pixel of the first convolution, then the pixel of the
        second.
    """
    norm = decoder.upscale_layer_norm
    first = _four_pixels(decoder.upscale_conv1)
    second = _four_pixels(decoder.upscale_conv2)

    begin = 0
    for part in parts:
        here = slice(begin, begin + part.shape[1])
        begin = here.stop
        x = F.linear(part, *first).unflatten(-1, (4, -1))  # (N, p, 4, D / 4)
        if finer:
            x = x + finer[0][:, here]
        x = F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        x = F.linear(decoder.activation(x), *second)  # (N, p, 4, 4 D / 8)
        x = x.flatten(2).unflatten(2, (PIXELS, -1))  # (N, p, 16, D / 8)
        if finer:
            x = x + finer[1][:, here]
        yield decoder.activation(x)


def read_masks(pixels: Iterable[Tensor], weights: Tensor) -> Tensor:
    """Multiply pixels (N, p, 16, C) by the weights (N, K, C) of masks -> (N, P, 16, K)."""
    masks = []
    for part in pixels:
        read = torch.bmm(part.flatten(1, 2), weights.transpose(1, 2))  # (N, 16 p, K)
        masks.append(read.unflatten(1, (-1, PIXELS)))
    return torch.cat(masks, dim=1)


def read_fine_masks(
    decoder: Any, pixels: Tensor, weights: Tensor, *, early: Tensor, grid: tuple[int, int]
) -> Tensor:
    """Read SAM-HQ's finer mask -> (N, 1, 4h, 4w).

    Args:
        pixels: (N, P, 16, C). weights: (N, 1, C). early: (N or 1, C, 4h, 4w), see
            `details_of_phrases`.
    """
    x = to_map(pixels, grid)  # (N, C, 4h, 4w)
    x = decoder.activation(decoder.mask_norm(decoder.mask_conv1(x)))
    x = decoder.mask_conv2(x) + early
    return torch.bmm(weights, x.flatten(2)).unflatten(2, x.shape[2:])


def to_map(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Lay out the pixels (N, P, 16, K) of the positions of a grid -> (N, K, 4h, 4w)."""
    x = pixels.unflatten(2, (2, 2, 2, 2)).unflatten(1, grid)  # (N, h, w, y, x, y', x', K)
    x = x.permute(0, 7, 1, 3, 5, 2, 4, 6)  # (N, K, h, y, y', w, x, x')
    return x.flatten(5, 7).flatten(2, 4)


def _four_pixels(conv: nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """Weight (4 c, C) and bias (4 c,) of a position's four pixels, row by row."""
    weight = conv.weight.permute(2, 3, 1, 0)  # (C, c, 2, 2) -> (2, 2, c, C)
    assert conv.bias is not None  # SAM's convolutions have one
    return weight.reshape(-1, conv.in_channels), conv.bias.repeat(4)
