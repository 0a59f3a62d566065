"""Towers whose trunk is timm's VisionTransformer or Eva, inside open_clip's TimmModel.

Letters: B images, N = h*w patches, P prefix tokens (class token, registers), D width, C embedding,
Q regions.
"""

from timm.models.eva import Eva
from torch import Tensor, cat, nn

from clim_models.towers.blocks import TimmBlock
from clim_models.towers.positions import resample_positions, rotary_table
from clim_models.towers.token_tower import TokenTower
from clim_models.towers.tower import Stem


class TimmViT(TokenTower):
    """Class-token or mean-pooled trunk: all EVA02 CLIPs, plain and hybrid timm ViTs."""

    def __init__(self, visual: nn.Module, *, antialias: bool):
        trunk = visual.trunk
        self.visual, self.trunk, self.antialias = visual, trunk, antialias
        self.kind = "eva" if isinstance(trunk, Eva) else "timm_vit"
        self.blocks, self.prefix = trunk.blocks, trunk.num_prefix_tokens
        self.pool = "map" if trunk.attn_pool is not None else trunk.global_pool
        _check_trunk(trunk, self.pool)
        # Any size goes in: the position table is resampled here, so timm's fixed-size check must
        # not stop it.
        trunk.patch_embed.strict_img_size = False
        self.stride = trunk.patch_embed.feat_ratio(as_scalar=True)
        self.readers = [TimmBlock(b, self.prefix) for b in self.blocks]

    def embed(self, images: Tensor) -> Stem:
        t = self.trunk
        grid = (images.shape[-2] // self.stride, images.shape[-1] // self.stride)
        x = t.patch_embed(images)
        x = x.reshape(
            x.shape[0], -1, x.shape[-1]
        )  # (B, N, D): flattened or NHWC, as the trunk was built
        embeds_prefix = t.pos_embed is not None and not t.no_embed_class
        positions = None
        if t.pos_embed is not None:
            positions = resample_positions(
                t.pos_embed,
                t.patch_embed.grid_size,
                grid,
                prefix=self.prefix if embeds_prefix else 0,
                antialias=self.antialias,
            ).to(x.dtype)
        if positions is not None and not embeds_prefix:
            x = x + positions
        prefix = [
            p.to(x.dtype).expand(x.shape[0], -1, -1)
            for p in (t.cls_token, t.reg_token)
            if p is not None
        ]
        x = cat([*prefix, x], dim=1)  # (B, P + N, D)
        if embeds_prefix:
            x = x + positions
        rope = getattr(t, "rope", None)
        return Stem(
            t.norm_pre(t.pos_drop(x)),
            grid,
            rope if rope is None else rotary_table(rope, grid, x.device),
        )

    def run_block(self, block: nn.Module, x: Tensor, rope: Tensor | None) -> Tensor:
        return block(x, rope=rope) if self.kind == "eva" else block(x)

    def project(self, tokens: Tensor) -> Tensor:
        return self.project_pooled(self.trunk.norm(tokens))

    def project_pooled(self, pooled: Tensor) -> Tensor:
        t = self.trunk
        return self.visual.head(t.head(t.head_drop(t.fc_norm(pooled))))

    def mean_of_last_block(self, tokens: Tensor, rope: Tensor | None) -> Tensor:
        x = self.trunk.norm(self.run_block(self.blocks[-1], tokens, rope))
        return self.project_pooled(x[:, self.prefix :].mean(1))

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        t = self.trunk
        blocks = [list(b.parameters()) for b in reversed(self.blocks)]
        if (
            self.kind == "eva"
        ):  # as in the papers: patch embedding, positions and class token never train
            return blocks
        start = [*t.patch_embed.parameters(), *t.norm_pre.parameters()]
        start += [p for p in (t.cls_token, t.reg_token) if p is not None]
        return [*blocks, [] if t.pos_embed is None else [t.pos_embed], start]

    def always_trainable(self) -> list[nn.Parameter]:
        return []

    def unused(self, path: str) -> list[nn.Parameter]:
        attn = self.blocks[-1].attn
        if path != "dense" or self.pool == "map":
            return []
        names = ("q_proj", "k_proj", "q_norm", "k_norm")
        modules = [getattr(attn, n, None) for n in names]
        biases = [attn.q_bias] if getattr(attn, "q_bias", None) is not None else []
        return biases + [p for m in modules if m is not None for p in m.parameters()]


def _check_trunk(trunk: nn.Module, pool: str) -> None:
    name = type(trunk).__name__
    if pool not in ("token", "avg", "map"):
        raise ValueError(f"{name} pools by {pool!r}; supported are 'token', 'avg' and 'map'")
    unsupported = [type(b).__name__ for b in trunk.blocks if not TimmBlock.supports(b)]
    if unsupported or getattr(trunk, "rope_mixed", False):
        what = unsupported[0] if unsupported else "mixed rotary embeddings"
        raise ValueError(
            f"{name} with {what} is not supported; use a trunk of plain timm Block or EvaBlock"
        )
