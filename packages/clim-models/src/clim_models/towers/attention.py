"""Attention helpers that the token towers share."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, h*w, C) -> (B, C, h, w), positions in row-major order."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *grid)


def maybe_checkpoint(active: bool, function: Callable, *inputs):
    """Run `function`, recomputing it in the backward pass when `active`."""
    return checkpoint(function, *inputs, use_reentrant=False) if active else function(*inputs)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, D) -> (B, heads, T, D / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def masked_attention(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    """Scaled dot product attention, heads merged: (B, H, Q, d), (B, H, T, d) -> (B, Q, H*d).

    allowed: bool (B, Q, T) or None; a query that is allowed nothing gives NaN, so callers leave it
    a token.
    """
    mask = allowed[:, None] if allowed is not None else None
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def mask_with_prefix(allowed: Tensor | None, prefix: int) -> Tensor | None:
    """bool (B, Q, N) over positions -> (B, Q, P + N): prefix tokens are always seen."""
    return None if allowed is None else F.pad(allowed, (prefix, 0), value=True)
