"""timm's transformer blocks in steps: one reader for each class, so that the last can run in parts.

Letters: B images, T tokens, P prefix tokens, N patches, D width, H heads, d width of a head.
"""

from collections.abc import Iterable
from typing import Protocol

import torch
import torch.nn.functional as F
from timm.layers import AttentionRope, apply_rot_embed_cat
from timm.models.eva import EvaAttention, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn

from clim_models.towers.attention import split_heads


class BlockReader(Protocol):
    """The steps of a transformer block. y is what enters the attention, (B, T, D).

    Attributes:
        heads: H.
        attention: the module whose parameters are read outside its own forward.
    """

    heads: int
    attention: nn.Module

    def norm(self, x: Tensor) -> Tensor:
        """Return the input of the attention: (B, T, D) -> (B, T, D)."""
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
        """Return the output of the attention branch, from attended values (B, T, D)."""
        ...

    def finish(self, x: Tensor, branch: Tensor) -> Tensor:
        """Add the branch to x, then run the MLP with its own residual."""
        ...


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
        """Return whether the block is of the exact classes that this reader knows."""
        return type(block) is Block and type(block.attn) is Attention and _is_plain(block.attn)

    def norm(self, x: Tensor) -> Tensor:
        return self.block.norm1(x)

    def query(self, y: Tensor, rope: Tensor | None) -> Tensor:
        return self.attn.q_norm(split_heads(self._project(y, 0), self.heads))

    def key(self, y: Tensor, rope: Tensor | None) -> Tensor:
        return self.attn.k_norm(split_heads(self._project(y, 1), self.heads))

    def value(self, y: Tensor) -> Tensor:
        return self._project(y, 2)

    def output(self, attended: Tensor) -> Tensor:
        return self.attn.proj_drop(self.attn.proj(self.attn.norm(attended)))

    def finish(self, x: Tensor, branch: Tensor) -> Tensor:
        b = self.block
        x = x + b.drop_path1(b.ls1(branch))
        return x + b.drop_path2(b.ls2(b.mlp(b.norm2(x))))

    def _project(self, y: Tensor, part: int) -> Tensor:
        """Apply the query (0), key (1) or value (2) rows of the fused projection."""
        return _fused_rows(self.attn.qkv, y, part)


class TimmEvaBlock:
    """Reader of timm's `EvaBlock`: rotary positions, fused or separate projections, layer scale.

    EVA02 and DINOv3 CLIPs have `EvaAttention` inside, PE-Core has `AttentionRope`.

    Args:
        prefix: P, the tokens without rotary positions.

    Raises:
        ValueError: a block, or an attention inside it, of another class.
    """

    def __init__(self, block: nn.Module, prefix: int):
        if not self.supports(block):
            raise ValueError(f"{type(block).__name__} is not timm's plain EvaBlock")
        attn = block.get_submodule("attn")
        assert isinstance(block, EvaBlock | EvaBlockPostNorm)
        assert isinstance(attn, EvaAttention | AttentionRope)
        self.block: EvaBlock | EvaBlockPostNorm = block
        self.attn: EvaAttention | AttentionRope = attn
        self.attention: nn.Module = attn
        self.heads: int = attn.num_heads
        self.prefix = prefix
        # Not every class and version of attention says it: interleaved rotations otherwise.
        self.rotate_half: bool = getattr(attn, "rotate_half", False)

    @staticmethod
    def supports(block: nn.Module) -> bool:
        """Return whether the block is of the exact classes that this reader knows."""
        return type(block) is EvaBlock and _is_eva_attention(block.attn)

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
        assert isinstance(b, EvaBlock)
        x = x + b.drop_path1(_scaled(branch, b.gamma_1))
        return x + b.drop_path2(_scaled(b.mlp(b.norm2(x)), b.gamma_2))

    def _project(self, y: Tensor, part: int) -> Tensor:
        """Apply the query (0), key (1) or value (2) projection."""
        attn = self.attn
        if attn.qkv is None:
            separate = (attn.q_proj, attn.k_proj, attn.v_proj)[part]
            return separate(y)
        # EvaAttention keeps the biases apart from the layer, AttentionRope does not.
        if not isinstance(attn, EvaAttention) or attn.q_bias is None:
            return _fused_rows(attn.qkv, y, part)
        return _fused_rows(attn.qkv, y, part, (attn.q_bias, attn.k_bias, attn.v_bias)[part])

    def _rotate(self, x: Tensor, rope: Tensor | None) -> Tensor:
        """Apply rotary positions to the patches of (B, H, P + N, d)."""
        if rope is None:
            return x
        patches = apply_rot_embed_cat(x[:, :, self.prefix :], rope, half=self.rotate_half)
        return torch.cat([x[:, :, : self.prefix], patches], dim=2).type_as(x)


class TimmEvaPostNormBlock(TimmEvaBlock):
    """Reader of timm's `EvaBlockPostNorm` (EVA02-E): each branch is normalised at its end.

    Raises:
        ValueError: as `TimmEvaBlock`.
    """

    @staticmethod
    def supports(block: nn.Module) -> bool:
        """Return whether the block is of the exact classes that this reader knows."""
        return type(block) is EvaBlockPostNorm and _is_eva_attention(block.attn)

    def norm(self, x: Tensor) -> Tensor:
        return x

    def output(self, attended: Tensor) -> Tensor:
        return self.block.norm1(super().output(attended))

    def finish(self, x: Tensor, branch: Tensor) -> Tensor:
        b = self.block
        x = x + b.drop_path1(branch)
        return x + b.drop_path2(b.norm2(b.mlp(x)))


def read_blocks(blocks: Iterable[nn.Module], prefix: int) -> list[BlockReader]:
    """Build the reader of each timm block.

    Args:
        blocks: first block first.
        prefix: P, the tokens without rotary positions.

    Raises:
        ValueError: a block that no reader knows. The message names its parts, and ends with the
            supported ones.
    """
    readers: list[BlockReader] = []
    for block in blocks:
        if TimmBlock.supports(block):
            readers.append(TimmBlock(block))
        elif TimmEvaBlock.supports(block):
            readers.append(TimmEvaBlock(block, prefix))
        elif TimmEvaPostNormBlock.supports(block):
            readers.append(TimmEvaPostNormBlock(block, prefix))
        else:
            raise ValueError(
                f"{_what_is_unknown(block)} cannot be read in parts; use a trunk whose blocks are "
                "timm's Block, EvaBlock or EvaBlockPostNorm, without gates and grouped queries"
            )
    return readers


def _is_eva_attention(attn: nn.Module) -> bool:
    return type(attn) in (EvaAttention, AttentionRope) and _is_plain(attn)


def _is_plain(attn: nn.Module) -> bool:
    """Return whether the attention has no gate, and a key and value for each query head."""
    heads = getattr(attn, "num_heads", None)
    return getattr(attn, "gate", None) is None and getattr(attn, "num_kv_heads", heads) == heads


def _what_is_unknown(block: nn.Module) -> str:
    """Name the part of a block that no reader knows."""
    known = (Block, EvaBlock, EvaBlockPostNorm)
    if type(block) not in known:
        return f"a block of class {type(block).__name__}"
    attn = block.get_submodule("attn")
    if _is_plain(attn):
        return f"an attention of class {type(attn).__name__}"
    return "an attention with a gate or grouped queries"


def _fused_rows(qkv: nn.Linear, y: Tensor, part: int, bias: Tensor | None = None) -> Tensor:
    """Apply one third of a fused projection; `bias` replaces the bias of the layer."""
    width = qkv.out_features // 3
    rows = slice(part * width, (part + 1) * width)
    if bias is None and qkv.bias is not None:
        bias = qkv.bias[rows]
    return F.linear(y, qkv.weight[rows], bias)


def _scaled(branch: Tensor, gamma: Tensor | None) -> Tensor:
    return branch if gamma is None else gamma * branch
