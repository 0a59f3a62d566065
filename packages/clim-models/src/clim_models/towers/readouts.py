"""The last transformer block, read at each patch: `Readout` says how.

Letters: B images, P prefix tokens, N = h*w patches, D width, H heads, d width of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from clim_models.features import Readout
from clim_models.towers.attention import masked_attention, split_heads
from clim_models.towers.blocks import BlockReader

# Standard deviation of NACLIP's neighbourhood, in patches.
NEIGHBOURHOOD = 5.0


def value_path(last: BlockReader, patches: Tensor) -> Tensor:
    """Run the last block as if every patch attended to itself alone: (B, N, D) -> (B, N, D)."""
    return last.finish(patches, value_branch(last, patches))


def value_branch(last: BlockReader, patches: Tensor) -> Tensor:
    """Read value and output projection only, without residual and MLP: (B, N, D) -> (B, N, D).

    Source: MaskCLIP (arXiv 2112.01071).
    """
    return last.output(last.value(last.norm(patches)))


def similar_path(
    last: BlockReader,
    tokens: Tensor,
    rope: Tensor | None,
    grid: tuple[int, int],
    readout: Readout,
) -> Tensor:
    """Run the last block with patches that attend to tokens like themselves.

    Args:
        last: the reader of the block.
        tokens: (B, P + N, D), what enters the block.
        rope: its rotary table, or None.
        grid: rows h and columns w of the patches.
        readout: SCLIP, CLEARCLIP or NACLIP.

    Returns:
        (B, N, D), before the final norm. With weights A over all tokens and values V:
        SCLIP: x + A V, then the MLP; A = softmax(q q^T / sqrt(d)) + softmax(k k^T / sqrt(d)).
        CLEARCLIP: A V; A = softmax(q q^T / sqrt(d)).
        NACLIP: A V; A = softmax(k k^T / sqrt(d) + g); g is `neighbourhood` among patches, 0 for
        prefix tokens.

    Source: arXiv 2312.01597, 2407.12442, 2404.08181.
    """
    y = last.norm(tokens)
    v = split_heads(last.value(y), last.heads)
    patches = grid[0] * grid[1]

    if readout == Readout.CLEARCLIP:
        q = last.query(y, rope)
        return last.output(masked_attention(q[:, :, -patches:], q, v, None))

    k = last.key(y, rope)
    if readout == Readout.NACLIP:
        favour = F.pad(neighbourhood(grid, y.device), (tokens.shape[1] - patches, 0))
        similar = F.scaled_dot_product_attention(
            k[:, :, -patches:], k, v, attn_mask=favour.to(k.dtype)
        )
        return last.output(similar.transpose(1, 2).flatten(2))

    q = last.query(y, rope)
    attended = masked_attention(q[:, :, -patches:], q, v, None)
    attended = attended + masked_attention(k[:, :, -patches:], k, v, None)
    return last.finish(tokens[:, -patches:], last.output(attended))


def neighbourhood(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Return how much each patch favours each other one: (N, N), 1 for itself.

    A Gaussian of their distance, with a standard deviation of 5 patches.

    Source: NACLIP (arXiv 2404.08181).
    """
    rows = torch.arange(grid[0], device=device)
    columns = torch.arange(grid[1], device=device)
    places = torch.cartesian_prod(rows, columns).float()  # (N, 2)
    squared = (places[:, None] - places[None]).square().sum(-1)
    return torch.exp(-squared / (2 * NEIGHBOURHOOD**2))
