"""open_clip's own transformer block in steps.

Letters: B images, T tokens, D width, H heads, d width of a head.
"""

from collections.abc import Iterator
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from clim_models.towers.attention import split_heads

# Possible parts of a block and its attention. open_clip 3 has `nn.MultiheadAttention` in its plain
# blocks and an attention of its own in the custom ones, open_clip 4 its own in both. Weights have
# the same names and shapes in all of them, so the parts decide and not the class.
BLOCK_PARTS = {"ln_1", "attn", "ln_attn", "ls_1", "ln_2", "mlp", "ls_2"}
ATTENTION_PARTS = {
    "in_proj_weight",
    "in_proj_bias",
    "out_proj",
    "ln_q",
    "ln_k",
    "ln_inner",
    "head_scale",
}
NEEDED = ("ln_1", "attn", "ln_2", "mlp", "attn.in_proj_weight", "attn.out_proj")


class OpenClipBlock:
    """Reader of open_clip's `ResidualAttentionBlock` and `CustomResidualAttentionBlock`.

    Raises:
        ValueError: a block with a part that this reader does not know, such as scaled cosine
            attention; the message names the part.
    """

    def __init__(self, block: nn.Module):
        _check_parts(block)
        self.block = block
        self.attention: nn.Module = block.get_submodule("attn")
        # Two classes of two libraries, with no difference that matters here.
        self.attn = cast(Any, self.attention)
        self.heads = int(self.attn.num_heads)
        self.out_proj = self.attn.out_proj
        self.width = int(self.out_proj.in_features)
        self.ln_1 = block.get_submodule("ln_1")
        self.ln_2 = block.get_submodule("ln_2")
        self.mlp = block.get_submodule("mlp")

    def norm(self, x: Tensor) -> Tensor:
        return self.ln_1(x)

    def query(self, y: Tensor, rope: Tensor | None) -> Tensor:
        return _through(self.attn, "ln_q", split_heads(self._project(y, 0), self.heads))

    def key(self, y: Tensor, rope: Tensor | None) -> Tensor:
        return _through(self.attn, "ln_k", split_heads(self._project(y, 1), self.heads))

    def value(self, y: Tensor) -> Tensor:
        return self._project(y, 2)

    def output(self, attended: Tensor) -> Tensor:
        scale = getattr(self.attn, "head_scale", None)
        if scale is not None:
            by_head = attended.unflatten(-1, (self.heads, -1))  # (B, T, H, d)
            attended = (by_head * scale.flatten()[:, None]).flatten(-2)
        attended = _through(self.attn, "ln_inner", attended)

        # nn.MultiheadAttention reads this weight itself, so it is read here the same way.
        branch = F.linear(attended, self.out_proj.weight, self.out_proj.bias)
        return _through(self.block, "ln_attn", branch)

    def finish(self, x: Tensor, branch: Tensor) -> Tensor:
        x = x + _through(self.block, "ls_1", branch)
        return x + _through(self.block, "ls_2", self.mlp(self.ln_2(x)))

    def query_key_parameters(self) -> Iterator[nn.Parameter]:
        """Return parameters that only queries and keys pass through."""
        for name in ("ln_q", "ln_k"):
            yield from getattr(self.attn, name, nn.Identity()).parameters()

    def _project(self, y: Tensor, part: int) -> Tensor:
        """Apply the query (0), key (1) or value (2) rows of the joint projection."""
        rows = slice(part * self.width, (part + 1) * self.width)
        bias = self.attn.in_proj_bias
        return F.linear(y, self.attn.in_proj_weight[rows], None if bias is None else bias[rows])


def _through(owner: nn.Module, name: str, x: Tensor) -> Tensor:
    """Run x through a part that not every version of open_clip has."""
    part = getattr(owner, name, None)
    return x if part is None else part(x)


def _check_parts(block: nn.Module) -> None:
    """Refuse a block with parts that the reader does not know, or without parts that it needs."""
    attn = getattr(block, "attn", None)
    unknown = _parts(block) - BLOCK_PARTS
    if isinstance(attn, nn.Module):
        unknown |= {f"attn.{name}" for name in _parts(attn) - ATTENTION_PARTS}
    if unknown:
        raise ValueError(
            f"blocks with {', '.join(sorted(unknown))} cannot be read in parts; use a model whose "
            "configuration has none of scaled_cosine_attn and block types of its own"
        )

    for path in NEEDED:
        owner, _, name = path.rpartition(".")
        if getattr(attn if owner else block, name, None) is None:
            raise ValueError(
                f"blocks of class {type(block).__name__} have no {path}; use a VisionTransformer "
                "with open_clip's own blocks"
            )


def _parts(module: nn.Module) -> set[str]:
    """Return the names of parameters and of children that do something."""
    idle = (nn.Identity, nn.Dropout)
    children = {name for name, child in module.named_children() if not isinstance(child, idle)}
    return children | {name for name, _ in module.named_parameters(recurse=False)}
