"""Transformer blocks taken apart: one reader per block class, so that the last block can be run in
pieces."""

from typing import Protocol

import torch.nn.functional as F
from timm.layers import apply_rot_embed_cat
from timm.models.eva import EvaAttention, EvaBlock
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, cat, nn

from clim_models.towers.attention import split_heads


class BlockReader(Protocol):
    """The steps of a pre-norm transformer block. y is the normalised input (B, T, D)."""

    heads: int

    def norm(self, x: Tensor) -> Tensor: ...

    def query(self, y: Tensor, rope: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, H, T, d); rope None for class tokens, which have no place in the
        image."""
        ...

    def key(self, y: Tensor, rope: Tensor | None) -> Tensor:
        """(B, P + N, D) -> (B, H, P + N, d)."""
        ...

    def value(self, y: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D), heads side by side."""
        ...

    def output(self, attended: Tensor) -> Tensor:
        """(B, T, D) attended values -> what the attention branch returns."""
        ...

    def finish(self, x: Tensor, branch: Tensor) -> Tensor:
        """Residual, then the MLP with its own."""
        ...


class OpenClipBlock:
    """`open_clip.transformer.ResidualAttentionBlock` (nn.MultiheadAttention inside)."""

    def __init__(self, block: nn.Module):
        self.block = block
        self.heads = block.attn.num_heads

    def norm(self, x: Tensor) -> Tensor:
        return self.block.ln_1(x)

    def _project(self, y: Tensor, part: int) -> Tensor:
        attn, d = self.block.attn, self.block.attn.embed_dim
        rows = slice(part * d, (part + 1) * d)
        return F.linear(y, attn.in_proj_weight[rows], attn.in_proj_bias[rows])

    def query(self, y: Tensor, rope: Tensor | None) -> Tensor:
        return split_heads(self._project(y, 0), self.heads)

    def key(self, y: Tensor, rope: Tensor | None) -> Tensor:
        return split_heads(self._project(y, 1), self.heads)

    def value(self, y: Tensor) -> Tensor:
        return self._project(y, 2)

    def output(self, attended: Tensor) -> Tensor:
        # nn.MultiheadAttention reads this weight itself, so it is read here the same way.
        return F.linear(attended, self.block.attn.out_proj.weight, self.block.attn.out_proj.bias)

    def finish(self, x: Tensor, branch: Tensor) -> Tensor:
        x = x + self.block.ls_1(branch)
        return x + self.block.ls_2(self.block.mlp(self.block.ln_2(x)))


class TimmBlock:
    """timm's `Block` and `EvaBlock`: fused or separate projections, query/key norms, inner norm,
    layer scale."""

    def __init__(self, block: nn.Module, prefix: int):
        self.block, self.attn, self.prefix = block, block.attn, prefix
        self.heads = block.attn.num_heads
        self.rotate_half = getattr(block.attn, "rotate_half", False)

    @staticmethod
    def supports(block: nn.Module) -> bool:
        known = (type(block) is Block and type(block.attn) is Attention) or (
            type(block) is EvaBlock and type(block.attn) is EvaAttention
        )
        return known and getattr(block.attn, "gate", None) is None

    def norm(self, x: Tensor) -> Tensor:
        return self.block.norm1(x)

    def _project(self, y: Tensor, part: int) -> Tensor:
        attn = self.attn
        if attn.qkv is None:
            return (attn.q_proj, attn.k_proj, attn.v_proj)[part](y)
        width = attn.qkv.out_features // 3
        rows = slice(part * width, (part + 1) * width)
        bias = attn.qkv.bias[rows] if attn.qkv.bias is not None else None
        if getattr(attn, "q_bias", None) is not None:
            bias = (attn.q_bias, attn.k_bias, attn.v_bias)[part]
        return F.linear(y, attn.qkv.weight[rows], bias)

    def query(self, y: Tensor, rope: Tensor | None) -> Tensor:
        return self._rotate(self.attn.q_norm(split_heads(self._project(y, 0), self.heads)), rope)

    def key(self, y: Tensor, rope: Tensor | None) -> Tensor:
        return self._rotate(self.attn.k_norm(split_heads(self._project(y, 1), self.heads)), rope)

    def _rotate(self, x: Tensor, rope: Tensor | None) -> Tensor:
        """Rotary positions on the patches of (B, H, P + N, d)."""
        if rope is None:
            return x
        patches = apply_rot_embed_cat(x[:, :, self.prefix :], rope, half=self.rotate_half)
        return cat([x[:, :, : self.prefix], patches], dim=2).type_as(x)

    def value(self, y: Tensor) -> Tensor:
        return self._project(y, 2)

    def output(self, attended: Tensor) -> Tensor:
        inner = getattr(self.attn, "norm", None)
        return self.attn.proj_drop(
            self.attn.proj(inner(attended) if inner is not None else attended)
        )

    def finish(self, x: Tensor, branch: Tensor) -> Tensor:
        b = self.block
        x = x + b.drop_path1(_scale(branch, b, "1"))
        return x + b.drop_path2(_scale(b.mlp(b.norm2(x)), b, "2"))


def _scale(branch: Tensor, block: nn.Module, which: str) -> Tensor:
    """Layer scale: a module `ls1` in `Block`, a parameter `gamma_1` (or None) in `EvaBlock`."""
    module = getattr(block, f"ls{which}", None)
    if module is not None:
        return module(branch)
    gamma = getattr(block, f"gamma_{which}")
    return branch if gamma is None else gamma * branch
