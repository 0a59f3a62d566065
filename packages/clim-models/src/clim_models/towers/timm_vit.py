"""Towers whose trunk is timm's VisionTransformer or Eva, inside open_clip's TimmModel.

Letters: B images, N = h*w patches, P prefix tokens (class token, registers), D width, C embedding,
Q regions.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from open_clip.timm_model import TimmModel
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from clim_models.towers.blocks import BlockReader, TimmBlock, TimmEvaBlock
from clim_models.towers.positions import resample_positions, rotary_table
from clim_models.towers.token_tower import TokenTower
from clim_models.towers.tower import GradientPath, Stem

Pool = Literal["token", "avg", "map"]
POOLS: tuple[Pool, ...] = ("token", "avg", "map")


class TimmViT(TokenTower):
    """Reader of trunks that pool by class token or mean: EVA02 CLIPs, plain and hybrid timm ViTs.

    Raises:
        ValueError: a trunk with another pool, other blocks, or mixed rotary embeddings.
    """

    def __init__(self, visual: nn.Module, *, antialias: bool):
        trunk = trunk_of(visual)
        assert trunk is not None
        self.visual = visual
        self.head: nn.Module = visual.get_submodule("head")
        self.trunk: Eva | VisionTransformer = trunk
        self.antialias = antialias
        self.is_eva = isinstance(trunk, Eva)
        self.kind = "eva" if self.is_eva else "timm_vit"
        self.blocks = list(trunk.blocks)
        self.prefix: int = trunk.num_prefix_tokens
        self.pool = _pool_of(trunk)
        self.readers = _readers_of(trunk)
        ratio = trunk.patch_embed.feat_ratio(as_scalar=True)
        self.stride: int = ratio if isinstance(ratio, int) else max(ratio)
        # Positions are resampled here, so timm's check for one size must not stop other sizes.
        trunk.patch_embed.strict_img_size = False

    @staticmethod
    def matches(visual: nn.Module) -> bool:
        """Return whether the trunk is a timm ViT or Eva without an attention pool."""
        trunk = trunk_of(visual)
        return trunk is not None and trunk.attn_pool is None

    def embed(self, images: Tensor) -> Stem:
        t = self.trunk
        grid = (images.shape[-2] // self.stride, images.shape[-1] // self.stride)
        x = t.patch_embed(images)
        x = x.reshape(x.shape[0], -1, x.shape[-1])  # (B, N, D): flattened or NHWC, as timm built it

        # Trunks differ in whether the prefix tokens have positions of their own.
        prefix_has_positions = t.pos_embed is not None and not t.no_embed_class
        positions = None
        if t.pos_embed is not None:
            positions = resample_positions(
                t.pos_embed,
                t.patch_embed.grid_size,
                grid,
                prefix=self.prefix if prefix_has_positions else 0,
                antialias=self.antialias,
            ).to(x.dtype)
        if positions is not None and not prefix_has_positions:
            x = x + positions

        tokens = [token for token in (t.cls_token, t.reg_token) if token is not None]
        prefix = [token.to(x.dtype).expand(x.shape[0], -1, -1) for token in tokens]
        x = torch.cat([*prefix, x], dim=1)  # (B, P + N, D)
        if positions is not None and prefix_has_positions:
            x = x + positions

        rope = getattr(t, "rope", None)
        table = None if rope is None else rotary_table(rope, grid, x.device)
        return Stem(t.norm_pre(t.pos_drop(x)), grid, table)

    def run_block(self, block: nn.Module, x: Tensor, rope: Tensor | None) -> Tensor:
        return block(x, rope=rope) if self.is_eva else block(x)

    def project(self, tokens: Tensor) -> Tensor:
        return self.project_pooled(self.trunk.norm(tokens))

    def project_pooled(self, pooled: Tensor) -> Tensor:
        """Apply what follows the pool: (..., D) -> (..., C)."""
        t = self.trunk
        return self.head(t.head(t.head_drop(t.fc_norm(pooled))))

    def mean_of_last_block(self, tokens: Tensor, rope: Tensor | None) -> Tensor:
        x = self.trunk.norm(self.run_block(self.blocks[-1], tokens, rope))
        return self.project_pooled(x[:, self.prefix :].mean(1))

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        t = self.trunk
        blocks = [list(block.parameters()) for block in reversed(self.blocks)]
        if self.is_eva:
            # As in the papers: patch embedding, positions and class token never train.
            return blocks

        positions = [] if t.pos_embed is None else [t.pos_embed]
        start = [*t.patch_embed.parameters(), *t.norm_pre.parameters()]
        start += [token for token in (t.cls_token, t.reg_token) if token is not None]
        return [*blocks, positions, start]

    def unused(self, path: GradientPath) -> list[nn.Parameter]:
        if path != GradientPath.DENSE or self.pool == "map":
            return []

        attention = self.readers[-1].attention
        bias = getattr(attention, "q_bias", None)
        found = [] if bias is None else [bias]
        for name in ("q_proj", "k_proj", "q_norm", "k_norm"):
            module = getattr(attention, name, None)
            if module is not None:
                found += module.parameters()
        return found


def trunk_of(visual: nn.Module) -> Eva | VisionTransformer | None:
    """Return the timm ViT or Eva inside an open_clip tower, or None."""
    if not isinstance(visual, TimmModel):
        return None
    trunk = visual.trunk
    return trunk if isinstance(trunk, Eva | VisionTransformer) else None


def _pool_of(trunk: Eva | VisionTransformer) -> Pool:
    if trunk.attn_pool is not None:
        return "map"
    for pool in POOLS:
        if trunk.global_pool == pool:
            return pool
    raise ValueError(
        f"{type(trunk).__name__} pools by {trunk.global_pool!r}; "
        "supported are 'token', 'avg' and 'map'"
    )


def _readers_of(trunk: Eva | VisionTransformer) -> Sequence[BlockReader]:
    """Build the reader of each block; unknown blocks and mixed rotations are refused."""
    readers: list[BlockReader] = []
    for block in trunk.blocks:
        if TimmBlock.supports(block):
            readers.append(TimmBlock(block))
        elif TimmEvaBlock.supports(block):
            readers.append(TimmEvaBlock(block, trunk.num_prefix_tokens))
        else:
            raise _unsupported(trunk, type(block).__name__)
    if getattr(trunk, "rope_mixed", False):
        raise _unsupported(trunk, "mixed rotary embeddings")
    return readers


def _unsupported(trunk: nn.Module, what: str) -> ValueError:
    return ValueError(
        f"{type(trunk).__name__} with {what} is not supported; "
        "use a trunk of plain timm Block or EvaBlock"
    )
