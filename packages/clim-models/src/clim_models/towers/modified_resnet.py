"""OpenAI's ModifiedResNet (RN50 ... RN50x64): the attention pool is the layer that mixes positions.

Letters: B images, N = h*w positions, D = channels of layer4, C embedding, Q regions.
"""

import torch
from torch import Tensor, cat, nn

from clim_models.pooling import align_boxes
from clim_models.towers.attention import masked_attention, maybe_checkpoint, split_heads, to_map
from clim_models.towers.positions import resample_positions
from clim_models.towers.tower import Readout, Stem


class ResNetTower:
    kind = "resnet"
    stride = 32
    num_blocks = 5
    grad_checkpointing = False
    aligns_boxes = True

    def __init__(self, visual: nn.Module, *, antialias: bool):
        self.visual, self.antialias = visual, antialias
        self.pool = visual.attnpool
        side = round((self.pool.positional_embedding.shape[0] - 1) ** 0.5)
        self.native_grid = (side, side)

    def direct_modules(self, *, attention: bool) -> list[nn.Module]:
        return [self.pool]

    def stem(self, images: Tensor, allowed: Tensor | None = None) -> Stem:
        v = self.visual
        x = maybe_checkpoint(self.grad_checkpointing, v.stem, images)
        for layer in (v.layer1, v.layer2, v.layer3, v.layer4):
            for block in layer:
                x = maybe_checkpoint(self.grad_checkpointing, block, x)
        return Stem(x, (x.shape[2], x.shape[3]))  # (B, D, h, w)

    def image(self, stem: Stem) -> Tensor:
        return maybe_checkpoint(self.grad_checkpointing, self._pool_all, stem.tokens)

    def dense(self, stem: Stem, readout: Readout) -> Tensor:
        # There is no residual and no MLP in this layer, so both readouts are the same map.
        patches = maybe_checkpoint(self.grad_checkpointing, self._values, stem.tokens)
        return to_map(patches, stem.grid)

    def attend(self, stem: Stem, allowed: Tensor) -> Tensor:
        return maybe_checkpoint(self.grad_checkpointing, self._pool_regions, stem.tokens, allowed)

    def align(self, stem: Stem, boxes: list[Tensor]) -> Tensor:
        """The papers' readout of ResNets: RoIAlign layer4 to the pool's own grid, then the
        attention pool."""
        return self._pool_all(align_boxes(stem.tokens, boxes, self.native_grid))

    def _positions(self, grid: tuple[int, int], dtype: torch.dtype) -> Tensor:
        table = self.pool.positional_embedding[None]
        return resample_positions(
            table, self.native_grid, grid, prefix=1, antialias=self.antialias
        ).to(dtype)

    def _values(self, feature_map: Tensor) -> Tensor:
        x = feature_map.flatten(2).transpose(1, 2)  # (B, N, D)
        x = x + self._positions(tuple(feature_map.shape[-2:]), x.dtype)[:, 1:]
        return self.pool.c_proj(self.pool.v_proj(x))

    def _pool_all(self, feature_map: Tensor) -> Tensor:
        patches = feature_map.flatten(2).transpose(1, 2)
        positions = self._positions(tuple(feature_map.shape[-2:]), patches.dtype)
        tokens = cat([patches.mean(1, keepdim=True), patches], dim=1) + positions  # (B, 1 + N, D)
        return self._attend(tokens[:, :1], tokens, None)[:, 0]

    def _pool_regions(self, feature_map: Tensor, allowed: Tensor) -> Tensor:
        """The pool as if the region were the whole image: its mean asks, its positions answer."""
        patches = feature_map.flatten(2).transpose(1, 2)
        positions = self._positions(tuple(feature_map.shape[-2:]), patches.dtype)
        weights = allowed.to(patches.dtype)
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1)
        means = weights @ patches + positions[:, :1]  # (B, Q, D)
        # Each query also sees its own mean, which stands first in the original pool.
        own = torch.eye(allowed.shape[1], dtype=torch.bool, device=allowed.device).expand(
            allowed.shape[0], -1, -1
        )
        tokens = cat([means, patches + positions[:, 1:]], dim=1)  # (B, Q + N, D)
        return self._attend(means, tokens, cat([own, allowed], dim=2))

    def _attend(self, queries: Tensor, tokens: Tensor, allowed: Tensor | None) -> Tensor:
        p = self.pool
        q, k, v = (
            split_heads(f(x), p.num_heads)
            for f, x in zip((p.q_proj, p.k_proj, p.v_proj), (queries, tokens, tokens))
        )
        return p.c_proj(masked_attention(q, k, v, allowed))

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        v = self.visual
        stem = [*v.conv1.parameters(), *v.conv2.parameters(), *v.conv3.parameters()]
        return [
            *([*layer.parameters()] for layer in (v.layer4, v.layer3, v.layer2, v.layer1)),
            stem,
        ]

    def always_trainable(self) -> list[nn.Parameter]:
        # v_proj and c_proj carry the image-text space and stay as they were.
        p = self.pool
        return [p.positional_embedding, *p.q_proj.parameters(), *p.k_proj.parameters()]

    def unused(self, path: str) -> list[nn.Parameter]:
        if path != "dense":
            return []
        return [*self.pool.q_proj.parameters(), *self.pool.k_proj.parameters()]
