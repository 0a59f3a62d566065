"""The base of towers with an attention pool behind their blocks.

Letters: B images, N patches, P prefix tokens, D width, C embedding, Q regions, H heads, d width of
a head.
"""

from collections.abc import Sequence

from torch import Tensor

from clim_models.features import Readout
from clim_models.towers.attention import mask_with_prefix, masked_attention, split_heads, to_map
from clim_models.towers.token_tower import ATTEND, TokenTower
from clim_models.towers.tower import Ability, Stem


class PooledTower(TokenTower):
    """Base of ViTs whose attention pool is the last layer that mixes positions.

    All blocks belong to the stem. Subclasses define the query of the pool and the projection of its
    result.

    Attributes:
        pool_heads: H of the pool.
        pool_sees_prefix: whether prefix tokens take part in the pool.
    """

    pool_heads: int
    pool_sees_prefix: bool = True

    def prepare_pool(self, tokens: Tensor) -> Tensor:
        """Normalise the output of the last block for the pool: (B, P + N, D) -> the same."""
        raise TypeError("PooledTower is a base class; use find_tower(visual)")

    def pool_query(self) -> Tensor:
        """Return the query of the pool: (1, H, 1, d)."""
        raise TypeError("PooledTower is a base class; use find_tower(visual)")

    def pool_key_value(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> keys (B, H, T, d) and values (B, T, H*d)."""
        raise TypeError("PooledTower is a base class; use find_tower(visual)")

    def pool_answer(self, attended: Tensor, *, whole: bool) -> Tensor:
        """Project attended values into the image-text space; `whole` runs the MLP, if any."""
        raise TypeError("PooledTower is a base class; use find_tower(visual)")

    @property
    def supports(self) -> frozenset[Ability]:
        return ATTEND

    def stem(self, images: Tensor, allowed: Tensor | None = None, keep: Sequence[int] = ()) -> Stem:
        # Regions attend in the pool only, so the blocks need no class token of a region.
        before = super().stem(images, None, keep)
        x = self._checkpointed(self.run_block, self.blocks[-1], before.tokens, before.rope)

        maps = dict(before.maps)
        last = self.num_blocks - 1
        if last in keep:
            maps[last] = to_map(x[:, self.prefix :], before.grid)
        return Stem(self.prepare_pool(x), before.grid, maps=maps)

    def image(self, stem: Stem) -> Tensor:
        return self._checkpointed(self._pool, self._seen(stem), None)[:, 0]

    def attend(self, stem: Stem, allowed: Tensor) -> Tensor:
        seen = mask_with_prefix(allowed, self.prefix) if self.pool_sees_prefix else allowed
        return self._checkpointed(self._pool, self._seen(stem), seen)

    def dense(self, stem: Stem, readout: Readout) -> Tensor:
        whole = readout == Readout.VALUE_RESIDUAL
        patches = stem.tokens[:, self.prefix :]
        return to_map(self._checkpointed(self._pool_value_only, patches, whole), stem.grid)

    def _seen(self, stem: Stem) -> Tensor:
        return stem.tokens if self.pool_sees_prefix else stem.tokens[:, self.prefix :]

    def _pool(self, tokens: Tensor, allowed: Tensor | None) -> Tensor:
        """Pool tokens (B, T, D), once or once for each region: (B, Q, C)."""
        queries = 1 if allowed is None else allowed.shape[1]
        k, v = self.pool_key_value(tokens)
        q = self.pool_query().expand(tokens.shape[0], -1, queries, -1)

        # A query without any key would give NaN: an empty region sees everything.
        seen = None if allowed is None else allowed | ~allowed.any(-1, keepdim=True)
        x = masked_attention(q, k, split_heads(v, self.pool_heads), seen)
        return self.pool_answer(x, whole=True)

    def _pool_value_only(self, patches: Tensor, whole: bool) -> Tensor:
        """Read the pool as if each patch were alone in it: (B, N, D) -> (B, N, C)."""
        return self.pool_answer(self.pool_key_value(patches)[1], whole=whole)
