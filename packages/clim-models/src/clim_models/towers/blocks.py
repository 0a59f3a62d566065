"""Transformer blocks in steps: one reader for each block class, so that the last can run in parts.

Letters: B images, T tokens, P prefix tokens, N patches, D width, H heads, d width of a head.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from timm.layers import apply_rot_embed_cat
from timm.models.eva import EvaAttention, EvaBlock
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn

from clim_models.towers.attention import split_heads


class BlockReader(Protocol):
    """The steps of a pre-norm transformer block. y is the normalised input (B, T, D).

    Attributes:
        heads: H.
        attention: the module whose parameters are read outside its own forward.
    """

    heads: int
    attention: nn.Module

    def norm(self, x: Tensor) -> Tensor:
        """Normalise the input of the attention: (B, T, D) -> (B, T, D)."""
        ...

    def query(self, y: Tensor, rope: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, H, T, d); rope is None for class tokens, which have no position."""
        ...

    def key(self, y: Tensor, rope: Tensor | None) -> Tensor:
        """(B, P + N, D) -> (B, H, P + N, d)."""
        ...

    def value(self, y: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D), heads next to each other."""
        ...

    def output(self, attended: Tensor) -> Tensor:
        """Turn attended values (B, T, D) into what the attention branch returns."""
        ...

    def finish(self, x: Tensor, branch: Tensor) -> Tensor:
        """Add the branch to x, then run the MLP with its own residual."""
        ...


class OpenClipBlock:
    """Reader of open_clip's `ResidualAttentionBlock`, which has an nn.MultiheadAttention inside."""

    def __init__(self, block: ResidualAttentionBlock):
        self.block = block
        self.attn: nn.MultiheadAttention = block.attn
        self.attention: nn.Module = self.attn
        self.heads = self.attn.num_heads

    def norm(self, x: Tensor) -> Tensor:
        return self.block.ln_1(x)

    def query(self, y: Tensor, rope: Tensor | None) -> Tensor:
        return split_heads(self._project(y, 0), self.heads)

    def key(self, y: Tensor, rope: Tensor | None) -> Tensor:
        return split_heads(self._project(y, 1), self.heads)

    def value(self, y: Tensor) -> Tensor:
        return self._project(y, 2)

    def output(self, attended: Tensor) -> Tensor:
        # nn.MultiheadAttention reads this weight itself, so it is read here the same way.
        return F.linear(attended, self.attn.out_proj.weight, self.attn.out_proj.bias)

    def finish(self, x: Tensor, branch: Tensor) -> Tensor:
        x = x + self.block.ls_1(branch)
        return x + self.block.ls_2(self.block.mlp(self.block.ln_2(x)))

    def _project(self, y: Tensor, part: int) -> Tensor:
        """Apply the query (0), key (1) or value (2) rows of the joint projection."""
        width = self.attn.embed_dim
        rows = slice(part * width, (part + 1) * width)
        bias = self.attn.in_proj_bias
        return F.linear(y, self.attn.in_proj_weight[rows], None if bias is None else bias[rows])


class TimmBlock:
    """Reader of timm's `Block`: fused projections, query and key norms, inner norm, layer scale.

    Raises:
        ValueError: a block, or an attention inside it, of another class.
    """

    def __init__(self, block: nn.Module):
        if not self.supports(block):
            raise ValueError(f"{type(block).__name__} is not timm's plain Block")
        attn = block.get_submodule("attn")
        assert isinstance(block, Block)
        assert isinstance(attn, Attention)
        self.block: Block = block
        self.attn: Attention = attn
        self.attention: nn.Module = attn
        self.heads: int = attn.num_heads

    @staticmethod
    def supports(block: nn.Module) -> bool:
        """Return whether the block is of the exact classes that this reader knows, without gate."""
        return (
            type(block) is Block
            and type(block.attn) is Attention
            and getattr(block.attn, "gate", None) is None
        )

    def norm(self, x: Tensor) -> Tensor:
        return self.block.norm1(x)

    def query(self, y: Tensor, rope: Tensor | None) -> Tensor:
        return self.attn.q_norm(split_heads(self._project(y, 0), self.heads))

    def key(self, y: Tensor, rope: Tensor | None) -> Tensor:
        return self.attn.k_norm(split_heads(self._project(y, 1), self.heads))

    def value(self, y: Tensor) -> Tensor:
        return self._project(y, 2)

    def output(self, attended: Tensor) -> Tensor:
        # timm before 1.0.16 has no inner norm in this class.
        inner = getattr(self.attn, "norm", None)
        if inner is not None:
            attended = inner(attended)
        return self.attn.proj_drop(self.attn.proj(attended))

    def finish(self, x: Tensor, branch: Tensor) -> Tensor:
        b = self.block
        x = x + b.drop_path1(b.ls1(branch))
        return x + b.drop_path2(b.ls2(b.mlp(b.norm2(x))))

    def _project(self, y: Tensor, part: int) -> Tensor:
        """Apply the query (0), key (1) or value (2) rows of the fused projection."""
        return _fused_rows(self.attn.qkv, y, part)


class TimmEvaBlock:
    """Reader of timm's `EvaBlock`: rotary positions, fused or separate projections, layer scale.

    Args:
        prefix: P, the tokens without rotary positions.

    Raises:
        ValueError: a block, or an attention inside it, of another class.
    """

    def __init__(self, block: nn.Module, prefix: int):
        if not self.supports(block):
            raise ValueError(f"{type(block).__name__} is not timm's plain EvaBlock")
        attn = block.get_submodule("attn")
        assert isinstance(block, EvaBlock)
        assert isinstance(attn, EvaAttention)
        self.block: EvaBlock = block
        self.attn: EvaAttention = attn
        self.attention: nn.Module = attn
        self.heads: int = attn.num_heads
        self.prefix = prefix
        # timm before 1.0.17 has interleaved rotations only.
        self.rotate_half: bool = getattr(attn, "rotate_half", False)

    @staticmethod
    def supports(block: nn.Module) -> bool:
        """Return whether the block is of the exact classes that this reader knows, without gate."""
        return (
            type(block) is EvaBlock
            and type(block.attn) is EvaAttention
            and getattr(block.attn, "gate", None) is None
        )

    def norm(self, x: Tensor) -> Tensor:
        return self.block.norm1(x)

    def query(self, y: Tensor, rope: Tensor | None) -> Tensor:
        heads = split_heads(self._project(y, 0), self.heads)
        return self._rotate(self.attn.q_norm(heads), rope)

    def key(self, y: Tensor, rope: Tensor | None) -> Tensor:
        heads = split_heads(self._project(y, 1), self.heads)
        return self._rotate(self.attn.k_norm(heads), rope)

    def value(self, y: Tensor) -> Tensor:
        return self._project(y, 2)

    def output(self, attended: Tensor) -> Tensor:
        return self.attn.proj_drop(self.attn.proj(self.attn.norm(attended)))

    def finish(self, x: Tensor, branch: Tensor) -> Tensor:
        b = self.block
        x = x + b.drop_path1(_scaled(branch, b.gamma_1))
        return x + b.drop_path2(_scaled(b.mlp(b.norm2(x)), b.gamma_2))

    def _project(self, y: Tensor, part: int) -> Tensor:
        """Apply the query (0), key (1) or value (2) projection."""
        attn = self.attn
        if attn.qkv is None:
            separate = (attn.q_proj, attn.k_proj, attn.v_proj)[part]
            return separate(y)
        if attn.q_bias is None:
            return _fused_rows(attn.qkv, y, part)
        return _fused_rows(attn.qkv, y, part, (attn.q_bias, attn.k_bias, attn.v_bias)[part])

    def _rotate(self, x: Tensor, rope: Tensor | None) -> Tensor:
        """Apply rotary positions to the patches of (B, H, P + N, d)."""
        if rope is None:
            return x
        patches = apply_rot_embed_cat(x[:, :, self.prefix :], rope, half=self.rotate_half)
        return torch.cat([x[:, :, : self.prefix], patches], dim=2).type_as(x)


def _fused_rows(qkv: nn.Linear, y: Tensor, part: int, bias: Tensor | None = None) -> Tensor:
    """Apply one third of a fused projection; `bias` replaces the bias of the layer."""
    width = qkv.out_features // 3
    rows = slice(part * width, (part + 1) * width)
    if bias is None and qkv.bias is not None:
        bias = qkv.bias[rows]
    return F.linear(y, qkv.weight[rows], bias)


def _scaled(branch: Tensor, gamma: Tensor | None) -> Tensor:
    return branch if gamma is None else gamma * branch
