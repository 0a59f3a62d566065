"""open_clip's own VisionTransformer (OpenAI, LAION, DataComp ViTs; QuickGELU and GELU)."""

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from clim_models.towers.open_clip_block import OpenClipBlock
from clim_models.towers.positions import resample_positions
from clim_models.towers.token_tower import TokenTower
from clim_models.towers.tower import GradientPath, Stem


class OpenClipViT(TokenTower):
    """Reader of open_clip ViTs that pool by class token or by average.

    Raises:
        ValueError: a ViT that does not pool, or blocks that cannot be read in parts.
    """

    kind = "vit"
    prefix = 1

    def __init__(self, visual: nn.Module, *, antialias: bool):
        assert isinstance(visual, VisionTransformer)
        if visual.pool_type not in ("tok", "avg"):
            raise ValueError(
                f"pool_type={visual.pool_type!r} has no image feature that regions could share; "
                "use a ViT that pools by 'tok' or 'avg'"
            )
        self.visual: VisionTransformer = visual
        self.antialias = antialias
        self.blocks = list(visual.transformer.resblocks)
        readers = [OpenClipBlock(block) for block in self.blocks]
        self.readers = readers
        self.last: OpenClipBlock = readers[-1]
        self.pool = "token" if visual.pool_type == "tok" else "avg"
        self.stride = visual.patch_size[0]

    @staticmethod
    def matches(visual: nn.Module) -> bool:
        """Return whether `visual` is open_clip's VisionTransformer without an attention pool."""
        return isinstance(visual, VisionTransformer) and visual.attn_pool is None

    def embed(self, images: Tensor) -> Stem:
        v = self.visual
        patches = v.conv1(images)  # (B, D, h, w)
        grid = (patches.shape[2], patches.shape[3])
        x = patches.flatten(2).transpose(1, 2)  # (B, N, D)

        class_token = v.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([class_token, x], dim=1)  # (B, 1 + N, D)
        positions = resample_positions(
            v.positional_embedding[None], v.grid_size, grid, prefix=1, antialias=self.antialias
        )
        # No patch dropout here: dropped patches would leave holes under the boxes.
        return Stem(v.ln_pre(x + positions.to(x.dtype)), grid)

    def project(self, tokens: Tensor) -> Tensor:
        return self._to_image_text_space(self.visual.ln_post(tokens))

    def mean_of_last_block(self, tokens: Tensor, rope: Tensor | None) -> Tensor:
        x = self.blocks[-1](tokens)[:, 1:]
        if self.visual.final_ln_after_pool:
            return self.project(x.mean(1))
        return self._to_image_text_space(self.visual.ln_post(x).mean(1))

    def _to_image_text_space(self, x: Tensor) -> Tensor:
        return x if self.visual.proj is None else x @ self.visual.proj

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        v = self.visual
        blocks = [list(block.parameters()) for block in reversed(self.blocks)]
        before = [v.class_embedding, *v.conv1.parameters(), *v.ln_pre.parameters()]
        return [*blocks, [v.positional_embedding], before]

    def unused(self, path: GradientPath) -> list[nn.Parameter]:
        # Query, key and value are rows of one tensor here. The rows of query and key get zeros,
        # but the tensor gets a gradient.
        return list(self.last.query_key_parameters()) if path == GradientPath.DENSE else []
