"""OpenAI's ModifiedResNet (RN50 ... RN50x64): the attention pool is the layer that mixes positions.

Letters: B images, N = h*w positions, D channels of layer4, C embedding, Q regions of an image,
R regions of all images.
"""

from collections.abc import Sequence

import torch
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from torch import Tensor, nn

from clim_models.features import Readout
from clim_models.pooling import align_boxes
from clim_models.towers.attention import masked_attention, maybe_checkpoint, split_heads, to_map
from clim_models.towers.positions import resample_positions
from clim_models.towers.tower import Ability, GradientPath, Stem


class ResNetTower:
    """Reader of ModifiedResNets. Blocks are the stem (0) and layer1 to layer4 (1 to 4)."""

    kind = "resnet"
    stride = 32
    num_blocks = 5
    supports: frozenset[Ability] = frozenset({"attend", "align"})

    def __init__(self, visual: nn.Module, *, antialias: bool):
        assert isinstance(visual, ModifiedResNet)
        self.visual: ModifiedResNet = visual
        self.pool: AttentionPool2d = visual.attnpool
        self.antialias = antialias
        self.grad_checkpointing = False
        side = round((self.pool.positional_embedding.shape[0] - 1) ** 0.5)
        self.native_grid = (side, side)

    @staticmethod
    def matches(visual: nn.Module) -> bool:
        """Return whether `visual` is open_clip's ModifiedResNet."""
        return isinstance(visual, ModifiedResNet)

    def direct_modules(self, *, attention: bool) -> list[nn.Module]:
        return [self.pool]

    def stem(self, images: Tensor, allowed: Tensor | None = None, keep: Sequence[int] = ()) -> Stem:
        v = self.visual
        maps: dict[int, Tensor] = {}

        x = maybe_checkpoint(self.grad_checkpointing, v.stem, images)
        if 0 in keep:
            maps[0] = x
        for i, layer in enumerate((v.layer1, v.layer2, v.layer3, v.layer4), start=1):
            for block in layer:
                x = maybe_checkpoint(self.grad_checkpointing, block, x)
            if i in keep:
                maps[i] = x
        return Stem(x, (x.shape[2], x.shape[3]), maps=maps)  # (B, D, h, w)

    def image(self, stem: Stem) -> Tensor:
        return maybe_checkpoint(self.grad_checkpointing, self.pool_maps, stem.tokens)

    def dense(self, stem: Stem, readout: Readout) -> Tensor:
        # There is no residual and no MLP in this layer, so both readouts are the same map.
        patches = maybe_checkpoint(self.grad_checkpointing, self._values, stem.tokens)
        return to_map(patches, stem.grid)

    def attend(self, stem: Stem, allowed: Tensor) -> Tensor:
        return maybe_checkpoint(self.grad_checkpointing, self._pool_regions, stem.tokens, allowed)

    def align(self, stem: Stem, boxes: list[Tensor]) -> Tensor:
        """Read boxes as the papers do: RoIAlign of layer4 to the pool's own grid, then the pool."""
        return self.pool_maps(align_boxes(stem.tokens, boxes, self.native_grid))

    def pyramid(self, stem: Stem, blocks: Sequence[int]) -> list[Tensor]:
        return [stem.maps[i] for i in blocks]

    def _positions(self, feature_map: Tensor) -> Tensor:
        """(1, 1 + N, D): the pool's positions for the grid of the map, that of the mean first."""
        grid = (feature_map.shape[-2], feature_map.shape[-1])
        table = resample_positions(
            self.pool.positional_embedding[None],
            self.native_grid,
            grid,
            prefix=1,
            antialias=self.antialias,
        )
        return table.to(feature_map.dtype)

    def _values(self, feature_map: Tensor) -> Tensor:
        """Apply the pool's value and output projections to each position: (B, N, C)."""
        x = feature_map.flatten(2).transpose(1, 2)  # (B, N, D)
        x = x + self._positions(feature_map)[:, 1:]
        return self.pool.c_proj(self.pool.v_proj(x))

    def pool_maps(self, feature_map: Tensor) -> Tensor:
        """Pool whole maps of layer4, or windows of them: (B, D, h, w) -> (B, C), not normalised."""
        patches = feature_map.flatten(2).transpose(1, 2)
        tokens = torch.cat([patches.mean(1, keepdim=True), patches], dim=1)  # (B, 1 + N, D)
        tokens = tokens + self._positions(feature_map)
        return self._attend(tokens[:, :1], tokens, None)[:, 0]

    def _pool_regions(self, feature_map: Tensor, allowed: Tensor) -> Tensor:
        """Pool each region as if it were the whole image: its mean asks, its positions answer."""
        patches = feature_map.flatten(2).transpose(1, 2)
        positions = self._positions(feature_map)

        weights = allowed.to(patches.dtype)
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1)
        means = weights @ patches + positions[:, :1]  # (B, Q, D)

        # Each query also sees its own mean, which stands first in the original pool.
        b, q = allowed.shape[:2]
        own = torch.eye(q, dtype=torch.bool, device=allowed.device).expand(b, -1, -1)
        tokens = torch.cat([means, patches + positions[:, 1:]], dim=1)  # (B, Q + N, D)
        return self._attend(means, tokens, torch.cat([own, allowed], dim=2))

    def _attend(self, queries: Tensor, tokens: Tensor, allowed: Tensor | None) -> Tensor:
        """(B, Q, D) queries of (B, T, D) tokens -> (B, Q, C)."""
        p = self.pool
        q = split_heads(p.q_proj(queries), p.num_heads)
        k = split_heads(p.k_proj(tokens), p.num_heads)
        v = split_heads(p.v_proj(tokens), p.num_heads)
        return p.c_proj(masked_attention(q, k, v, allowed))

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        v = self.visual
        layers = [list(layer.parameters()) for layer in (v.layer4, v.layer3, v.layer2, v.layer1)]
        stem = [*v.conv1.parameters(), *v.conv2.parameters(), *v.conv3.parameters()]
        return [*layers, stem]

    def always_trainable(self) -> list[nn.Parameter]:
        # v_proj and c_proj carry the image-text space and stay as they were.
        p = self.pool
        return [p.positional_embedding, *p.q_proj.parameters(), *p.k_proj.parameters()]

    def unused(self, path: GradientPath) -> list[nn.Parameter]:
        if path != GradientPath.DENSE:
            return []
        return [*self.pool.q_proj.parameters(), *self.pool.k_proj.parameters()]
