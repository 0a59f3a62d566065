"""Position embeddings for the size an image really has."""

import torch
from timm.layers import build_rotary_pos_embed, resample_abs_pos_embed
from torch import Tensor, nn


def resample_positions(
    table: Tensor, old: tuple[int, int], new: tuple[int, int], *, prefix: int, antialias: bool
) -> Tensor:
    """Bicubic resampling of a learned position table.

    Args:
        table: (1, prefix + h*w, D); the first `prefix` rows (class token, registers) stay as they
            are.
        old, new: grids as (rows, columns).
        antialias: False is the setting of the papers; it differs from True by 2.5e-3 when enlarging
            and 1e-2 when shrinking.

    Returns:
        (1, prefix + new h*w, D).
    """
    if tuple(old) == tuple(new):
        return table
    return resample_abs_pos_embed(
        table, new_size=list(new), old_size=list(old), num_prefix_tokens=prefix, antialias=antialias
    )


def rotary_table(rope: nn.Module, grid: tuple[int, int], device: torch.device) -> Tensor:
    """Rotary table of a timm `RotaryEmbeddingCat` for any grid, square or not.

    Both axes span the reference grid (16 x 16 for EVA02), so positions get finer as the grid grows:
    row i of h sits at i / h * 16 and column j of w at j / w * 16. Returns (h*w, 2 * head_dim) =
    [sin, cos], rows in row-major order.

    Source: EVA-02 (arXiv 2303.11331); the table is recomputed, not interpolated.
    """
    sin, cos = build_rotary_pos_embed(
        feat_shape=list(grid),
        dim=rope.dim,
        temperature=rope.temperature,
        in_pixels=False,
        ref_feat_shape=rope.ref_feat_shape,
        grid_offset=rope.grid_offset,
        grid_indexing=rope.grid_indexing,
        device=device,
    )
    return torch.cat([sin, cos], -1)
