"""open_clip's own VisionTransformer (OpenAI, LAION, DataComp ViTs; QuickGELU and GELU)."""

from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, cat, nn

from clim_models.towers.blocks import OpenClipBlock
from clim_models.towers.positions import resample_positions
from clim_models.towers.token_tower import TokenTower
from clim_models.towers.tower import Stem


class OpenClipViT(TokenTower):
    kind = "vit"
    prefix = 1

    def __init__(self, visual: nn.Module, *, antialias: bool):
        self.visual, self.antialias = visual, antialias
        self.blocks = visual.transformer.resblocks
        if visual.attn_pool is not None or visual.pool_type not in ("tok", "avg"):
            raise ValueError(
                "CoCa's attentional pooler has no region features; use a ViT that pools by 'tok' "
                "or 'avg'"
            )
        if any(type(b) is not ResidualAttentionBlock for b in self.blocks):
            raise ValueError(
                f"blocks of class {type(self.blocks[-1]).__name__} are not supported; "
                "use a config without custom attention options (block_type, qk_norm, scale_*)"
            )
        self.pool = "token" if visual.pool_type == "tok" else "avg"
        self.stride = visual.patch_size[0]
        self.readers = [OpenClipBlock(b) for b in self.blocks]

    def embed(self, images: Tensor) -> Stem:
        v = self.visual
        patches = v.conv1(images)  # (B, D, h, w)
        grid = (patches.shape[2], patches.shape[3])
        x = patches.flatten(2).transpose(1, 2)  # (B, N, D)
        x = cat(
            [v.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1), x], dim=1
        )  # (B, 1 + N, D)
        positions = resample_positions(
            v.positional_embedding[None], v.grid_size, grid, prefix=1, antialias=self.antialias
        )
        # Patch dropout is left out: dropped patches would leave holes under the boxes.
        return Stem(v.ln_pre(x + positions.to(x.dtype)), grid)

    def project(self, tokens: Tensor) -> Tensor:
        x = self.visual.ln_post(tokens)
        return x if self.visual.proj is None else x @ self.visual.proj

    def mean_of_last_block(self, tokens: Tensor, rope: Tensor | None) -> Tensor:
        x = self.blocks[-1](tokens)[:, 1:]
        if self.visual.final_ln_after_pool:
            return self.project(x.mean(1))
        x = self.visual.ln_post(x).mean(1)
        return x if self.visual.proj is None else x @ self.visual.proj

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        v = self.visual
        blocks = [list(b.parameters()) for b in reversed(self.blocks)]
        return [
            *blocks,
            [v.positional_embedding],
            [v.class_embedding, *v.conv1.parameters(), *v.ln_pre.parameters()],
        ]

    def always_trainable(self) -> list[nn.Parameter]:
        return []

    def unused(self, path: str) -> list[nn.Parameter]:
        # Query, key and value share one tensor here: its query and key rows get zeros, the tensor
        # gets a gradient.
        return []
