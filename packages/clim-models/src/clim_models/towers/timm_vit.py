"""Towers whose trunk is timm's VisionTransformer, Eva or NaFlexVit, in open_clip's TimmModel.

Letters: B images, N = h*w patches, P prefix tokens (class token, registers), D width, C embedding,
Q regions.
"""

from typing import Literal, TypeAlias

import torch
from open_clip.timm_model import TimmModel
from timm.models.eva import Eva
from timm.models.naflexvit import NaFlexVit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from clim_models.towers.blocks import read_blocks
from clim_models.towers.positions import check_rope, resample_positions, rotary_table
from clim_models.towers.token_tower import TokenTower
from clim_models.towers.tower import GradientPath, Stem

Pool = Literal["token", "avg", "map"]
POOLS: tuple[Pool, ...] = ("token", "avg", "map")
Trunk: TypeAlias = Eva | NaFlexVit | VisionTransformer


class TimmViT(TokenTower):
    """Reader of trunks that pool by class token or mean.

    EVA02 CLIPs, PE-Spatial, DINOv3, TIPSv2, plain and hybrid timm ViTs, NaFlex ViTs.

    Raises:
        ValueError: a trunk with another pool, other blocks, or unknown rotary embeddings.
    """

    def __init__(self, visual: nn.Module, *, antialias: bool):
        trunk = trunk_of(visual)
        assert trunk is not None
        self.visual = visual
        self.head: nn.Module = visual.get_submodule("head")
        self.trunk: Trunk = trunk
        self.antialias = antialias
        self.is_eva = isinstance(trunk, Eva)
        self.kind = "eva" if self.is_eva else "timm_vit"
        self.blocks = list(trunk.blocks)
        self.prefix: int = trunk.num_prefix_tokens
        self.pool = _pool_of(trunk)
        self.readers = read_blocks(trunk.blocks, self.prefix)
        self.rope: nn.Module | None = getattr(trunk, "rope", None)
        check_rope(self.rope)

        embedding = trunk.embeds if isinstance(trunk, NaFlexVit) else trunk.patch_embed
        ratio = embedding.feat_ratio(as_scalar=True)
        self.stride: int = ratio if isinstance(ratio, int) else max(ratio)
        if not isinstance(trunk, NaFlexVit):
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
        if isinstance(t, NaFlexVit):
            # These trunks resample their positions themselves, with antialiasing.
            x, _ = t.embeds(images)
        else:
            x = self._embed_patches(t, images, grid)

        table = None if self.rope is None else rotary_table(self.rope, grid, x.device)
        return Stem(t.norm_pre(x), grid, table)

    def _embed_patches(
        self, t: Eva | VisionTransformer, images: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        """Embed patches, add positions and prefix tokens: (B, 3, H, W) -> (B, P + N, D)."""
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
        return t.pos_drop(x)

    def run_block(self, block: nn.Module, x: Tensor, rope: Tensor | None) -> Tensor:
        found: Tensor = block(x) if rope is None else block(x, rope=rope)
        return found

    def project(self, tokens: Tensor) -> Tensor:
        return self.project_pooled(self.trunk.norm(tokens))

    def project_pooled(self, pooled: Tensor) -> Tensor:
        """Apply the layers after the pool: (..., D) -> (..., C)."""
        t = self.trunk
        return self.head(t.head(t.head_drop(t.fc_norm(pooled))))

    def mean_of_last_block(self, tokens: Tensor, rope: Tensor | None) -> Tensor:
        x = self.trunk.norm(self.run_block(self.blocks[-1], tokens, rope))
        pooled = x if getattr(self.trunk, "pool_include_prefix", False) else x[:, self.prefix :]
        return self.project_pooled(pooled.mean(1))

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        t = self.trunk
        blocks = [list(block.parameters()) for block in reversed(self.blocks)]
        if self.is_eva:
            # As in the papers: patch embedding, positions and class token never train.
            return blocks

        table = t.embeds.pos_embed if isinstance(t, NaFlexVit) else t.pos_embed
        positions = [table] if isinstance(table, nn.Parameter) else []
        start = [*_embedding_parameters(t), *t.norm_pre.parameters()]
        return [*blocks, positions, [p for p in start if p is not table]]

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


def trunk_of(visual: nn.Module) -> Trunk | None:
    """Return the timm ViT, Eva or NaFlexVit inside an open_clip tower, or None."""
    if not isinstance(visual, TimmModel):
        return None
    trunk = visual.trunk
    return trunk if isinstance(trunk, Trunk) else None


def _embedding_parameters(trunk: Trunk) -> list[nn.Parameter]:
    """Return the parameters that make tokens of patches."""
    if isinstance(trunk, NaFlexVit):
        return list(trunk.embeds.parameters())
    tokens = [token for token in (trunk.cls_token, trunk.reg_token) if token is not None]
    return [*trunk.patch_embed.parameters(), *tokens]


def _pool_of(trunk: Trunk) -> Pool:
    if trunk.attn_pool is not None:
        return "map"
    for pool in POOLS:
        if trunk.global_pool == pool:
            return pool
    raise ValueError(
        f"{type(trunk).__name__} pools by {trunk.global_pool!r}; "
        "supported are 'token', 'avg' and 'map'"
    )
