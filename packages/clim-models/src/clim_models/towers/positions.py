"""Position embeddings for the size that an image really has."""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import (
    RotaryEmbeddingCat,
    RotaryEmbeddingDinoV3,
    build_rotary_pos_embed,
    resample_abs_pos_embed,
)
from torch import Tensor, nn


def resample_positions(
    table: Tensor, old: tuple[int, int], new: tuple[int, int], *, prefix: int, antialias: bool
) -> Tensor:
    """Resample a learned position table to another grid, bicubic.

    Args:
        table: (1, prefix + h*w, D). The first `prefix` rows (class token, registers) stay as
            they are.
        old, new: grids as (rows, columns).
        antialias: False is the setting of the papers. It differs from True by 2.5e-3 when
            enlarging and by 1e-2 when shrinking.

    Returns:
        (1, prefix + new h*w, D).
    """
    if any(isinstance(side, torch.SymInt) for side in new):
        # An export for any size: to ask whether the grid is the old one would fix the answer.
        return _resample_always(table, old, new, prefix=prefix, antialias=antialias)
    if tuple(old) == tuple(new):
        return table
    return resample_abs_pos_embed(
        table,
        new_size=list(new),
        old_size=list(old),
        num_prefix_tokens=prefix,
        antialias=antialias,
    )


def _resample_always(
    table: Tensor, old: tuple[int, int], new: tuple[int, int], *, prefix: int, antialias: bool
) -> Tensor:
    """Resample without looking at the sizes; where the grid stays, bicubic changes nothing."""
    positions = table[:, prefix:].float().unflatten(1, old).permute(0, 3, 1, 2)  # (1, D, h, w)
    resized = F.interpolate(positions, size=new, mode="bicubic", antialias=antialias)
    rows = resized.flatten(2).transpose(1, 2).to(table.dtype)
    return torch.cat([table[:, :prefix], rows], dim=1)


def check_rope(rope: nn.Module | None) -> None:
    """Refuse rotary embeddings that `rotary_table` cannot compute for another grid.

    Raises:
        ValueError: mixed or multimodal tables, or a grid that is not counted in patches.
    """
    if rope is None or isinstance(rope, RotaryEmbeddingDinoV3):
        return
    if not isinstance(rope, RotaryEmbeddingCat):
        raise ValueError(
            f"rotary embeddings of class {type(rope).__name__} are not supported; use a trunk with "
            "axial or DINOv3 rotary embeddings, or with learned positions"
        )
    if rope.in_pixels or getattr(rope, "grid_type", "index") != "index":
        raise ValueError(
            "rotary embeddings that count in pixels or from the centre are not supported; use a "
            "trunk whose rotary embeddings count patches"
        )


def rotary_table(rope: nn.Module, grid: tuple[int, int], device: torch.device) -> Tensor:
    """Compute the rotary table of any grid, square or not.

    EVA02 and PE: both axes span the reference grid (16 x 16 for EVA02), so positions get finer as
    the grid grows: row i of h sits at i / h * 16 and column j of w at j / w * 16. DINOv3: both axes
    span [-1, 1].

    Args:
        rope: checked by `check_rope`.
        grid: rows h and columns w.
        device: where the table is made.

    Returns:
        (h*w, 2 * head_dim) = [sin, cos], positions in row-major order.

    Source: EVA-02 (arXiv 2303.11331), DINOv3 (arXiv 2508.10104). The table is computed anew, not
    interpolated.
    """
    if isinstance(rope, RotaryEmbeddingDinoV3):
        return rope.get_embed(shape=list(grid)).to(device)

    assert isinstance(rope, RotaryEmbeddingCat)
    layout: dict[str, Any] = {}
    if getattr(rope, "rotate_half", False):
        # Only newer versions of timm have this layout.
        layout["rotate_half"] = True
    sin, cos = build_rotary_pos_embed(
        feat_shape=list(grid),
        dim=rope.dim,
        temperature=rope.temperature,
        in_pixels=False,
        ref_feat_shape=rope.ref_feat_shape,
        grid_offset=rope.grid_offset,
        grid_indexing=rope.grid_indexing,
        device=device,
        **layout,
    )
    return torch.cat([sin, cos], -1)


def grid_of_image(height: int, width: int, stride: int, *, exact: bool) -> tuple[int, int]:
    """Return rows and columns of positions of an image; see `RegionModel.grid_size`.

    exact: refuse sides that are no multiples of the stride, instead of ignoring the rest.
    """
    if height < stride or width < stride:
        raise ValueError(
            f"image of {height}x{width} px is smaller than one patch of {stride} px; enlarge it"
        )
    if exact and (height % stride or width % stride):
        up = (-(-height // stride) * stride, -(-width // stride) * stride)
        raise ValueError(
            f"image of {height}x{width} px does not divide into patches of {stride} px; resize or "
            f"letterbox it to {up[0]}x{up[1]} (or build the model with partial_patches='crop' to "
            "ignore the rest)"
        )
    return height // stride, width // stride
