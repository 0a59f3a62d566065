"""timm ViTs that pool with a latent query."""

import torch.nn.functional as F
from timm.layers import AttentionPoolLatent
from torch import Tensor, nn

from clim_models.towers.attention import masked_attention, maybe_checkpoint, split_heads, to_map
from clim_models.towers.timm_vit import TimmViT
from clim_models.towers.tower import Readout, Stem


class LatentPooledViT(TimmViT):
    """Trunk with an attention pool (SigLIP): the pool is the last layer that mixes, so all blocks
    are stem."""

    def __init__(self, visual: nn.Module, *, antialias: bool):
        super().__init__(visual, antialias=antialias)
        self.latent: AttentionPoolLatent = self.trunk.attn_pool
        if (
            self.latent.latent_len != 1
            or self.latent.pos_embed is not None
            or self.latent.mlp is None
        ):
            raise ValueError(
                "only attention pools with one latent query, no positions and an MLP are supported"
            )

    def direct_modules(self, *, attention: bool) -> list[nn.Module]:
        return [self.latent]

    def stem(self, images: Tensor, allowed: Tensor | None = None) -> Stem:
        before = super().stem(images)
        x = maybe_checkpoint(
            self.grad_checkpointing, self.run_block, self.blocks[-1], before.tokens, before.rope
        )
        return Stem(self.trunk.norm(x), before.grid)

    def image(self, stem: Stem) -> Tensor:
        return self._checkpointed(self._pool, stem.tokens, None)[:, 0]

    def attend(self, stem: Stem, allowed: Tensor) -> Tensor:
        # A region may be empty; prefix tokens, if there are any, are never hidden.
        allowed = F.pad(allowed, (self.prefix, 0), value=True)
        return self._checkpointed(self._pool, stem.tokens, allowed)

    def dense(self, stem: Stem, readout: Readout) -> Tensor:
        step = self._pool_value_residual if readout == "value_residual" else self._pool_value
        return to_map(self._checkpointed(step, stem.tokens[:, self.prefix :]), stem.grid)

    def _key_value(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.latent.kv(tokens).chunk(2, dim=-1)
        return self.latent.k_norm(split_heads(k, self.latent.num_heads)), v

    def _finish(self, x: Tensor) -> Tensor:
        return self.project_pooled(x + self.latent.mlp(self.latent.norm(x)))

    def _pool(self, tokens: Tensor, allowed: Tensor | None) -> Tensor:
        k, v = self._key_value(tokens)
        queries = 1 if allowed is None else allowed.shape[1]
        q = self.latent.q(self.latent.latent).expand(tokens.shape[0], queries, -1)
        q = self.latent.q_norm(split_heads(q, self.latent.num_heads))
        # A query without any key would be NaN: an empty region sees everything.
        seen = None if allowed is None else allowed | ~allowed.any(-1, keepdim=True)
        x = masked_attention(q, k, split_heads(v, self.latent.num_heads), seen)
        return self._finish(self.latent.proj(x))

    def _pool_value_residual(self, patches: Tensor) -> Tensor:
        return self._finish(self.latent.proj(self._key_value(patches)[1]))

    def _pool_value(self, patches: Tensor) -> Tensor:
        return self.project_pooled(self.latent.proj(self._key_value(patches)[1]))
