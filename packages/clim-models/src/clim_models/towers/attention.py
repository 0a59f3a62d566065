"""Attention helpers that the token towers share."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Lay tokens (B, h*w, C), in row-major order, on their grid: (B, C, h, w)."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *grid)


def maybe_checkpoint(active: bool, function: Callable[..., Any], *inputs: Any) -> Any:
    """Call `function`; if `active`, its activations are computed anew in the backward pass."""
    if not active:
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, D) -> (B, heads, T, D / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def masked_attention(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    """Compute scaled dot product attention and merge its heads.

    Args:
        q, k, v: (B, H, Q, d), (B, H, T, d), (B, H, T, d).
        allowed: bool (B, Q, T) or None. A query without any allowed token gives NaN, so callers
            leave each query at least one.

    Returns:
        (B, Q, H*d).
    """
    mask = None if allowed is None else allowed[:, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def mask_with_prefix(allowed: Tensor, prefix: int) -> Tensor:
    """Add the prefix tokens, which every query sees: bool (B, Q, N) -> (B, Q, P + N)."""
    return F.pad(allowed, (prefix, 0), value=True)
