"""timm ViTs that pool with a latent query (SigLIP).

Letters: B images, N patches, P prefix tokens, D width, C embedding, Q regions.
"""

from collections.abc import Sequence

from timm.layers import AttentionPoolLatent, Mlp
from torch import Tensor, nn

from clim_models.features import Readout
from clim_models.towers.attention import mask_with_prefix, masked_attention, split_heads, to_map
from clim_models.towers.timm_vit import TimmViT, trunk_of
from clim_models.towers.token_tower import ATTEND
from clim_models.towers.tower import Ability, Stem


class LatentPooledViT(TimmViT):
    """Reader of trunks with an attention pool.

    The pool is the last layer that mixes positions, so all blocks belong to the stem.

    Raises:
        ValueError: a pool with several latent queries, with positions, or without MLP.
    """

    def __init__(self, visual: nn.Module, *, antialias: bool):
        super().__init__(visual, antialias=antialias)
        latent = self.trunk.get_submodule("attn_pool")
        assert isinstance(latent, AttentionPoolLatent)
        if latent.latent_len != 1 or latent.pos_embed is not None or latent.mlp is None:
            raise ValueError(
                "only attention pools with one latent query, no positions and an MLP are supported"
            )
        self.latent: AttentionPoolLatent = latent
        self.mlp: Mlp = latent.mlp

    @staticmethod
    def matches(visual: nn.Module) -> bool:
        """Return whether the trunk is a timm ViT with an attention pool."""
        trunk = trunk_of(visual)
        return trunk is not None and trunk.attn_pool is not None

    @property
    def supports(self) -> frozenset[Ability]:
        return ATTEND

    def direct_modules(self, *, attention: bool) -> list[nn.Module]:
        return [self.latent]

    def stem(self, images: Tensor, allowed: Tensor | None = None, keep: Sequence[int] = ()) -> Stem:
        # Regions attend in the pool only, so the blocks need no class token of a region.
        before = super().stem(images, None, keep)
        x = self._checkpointed(self.run_block, self.blocks[-1], before.tokens, before.rope)

        maps = dict(before.maps)
        last = self.num_blocks - 1
        if last in keep:
            maps[last] = to_map(x[:, self.prefix :], before.grid)
        return Stem(self.trunk.norm(x), before.grid, maps=maps)

    def image(self, stem: Stem) -> Tensor:
        return self._checkpointed(self._pool, stem.tokens, None)[:, 0]

    def attend(self, stem: Stem, allowed: Tensor) -> Tensor:
        seen = mask_with_prefix(allowed, self.prefix)
        return self._checkpointed(self._pool, stem.tokens, seen)

    def dense(self, stem: Stem, readout: Readout) -> Tensor:
        step = self._pool_value_residual if readout == Readout.VALUE_RESIDUAL else self._pool_value
        return to_map(self._checkpointed(step, stem.tokens[:, self.prefix :]), stem.grid)

    def _key_value(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> keys (B, H, T, d), values (B, T, D)."""
        k, v = self.latent.kv(tokens).chunk(2, dim=-1)
        return self.latent.k_norm(split_heads(k, self.latent.num_heads)), v

    def _finish(self, x: Tensor) -> Tensor:
        return self.project_pooled(x + self.mlp(self.latent.norm(x)))

    def _pool(self, tokens: Tensor, allowed: Tensor | None) -> Tensor:
        """Pool tokens (B, P + N, D), once or once for each region: (B, Q, C)."""
        heads = self.latent.num_heads
        k, v = self._key_value(tokens)
        queries = 1 if allowed is None else allowed.shape[1]
        q = self.latent.q(self.latent.latent).expand(tokens.shape[0], queries, -1)
        q = self.latent.q_norm(split_heads(q, heads))

        # A query without any key would give NaN: an empty region sees everything.
        seen = None if allowed is None else allowed | ~allowed.any(-1, keepdim=True)
        x = masked_attention(q, k, split_heads(v, heads), seen)
        return self._finish(self.latent.proj(x))

    def _pool_value_residual(self, patches: Tensor) -> Tensor:
        return self._finish(self.latent.proj(self._key_value(patches)[1]))

    def _pool_value(self, patches: Tensor) -> Tensor:
        return self.project_pooled(self.latent.proj(self._key_value(patches)[1]))
