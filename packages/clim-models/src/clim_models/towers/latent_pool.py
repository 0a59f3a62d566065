"""timm ViTs that pool with a latent query (SigLIP, SigLIP 2 NaFlex, PE-Core)."""

from timm.layers import AttentionPoolLatent, Mlp
from torch import Tensor, nn

from clim_models.towers.attention import split_heads
from clim_models.towers.pooled_tower import PooledTower
from clim_models.towers.timm_vit import TimmViT, trunk_of


class LatentPooledViT(PooledTower, TimmViT):
    """Reader of trunks with timm's attention pool.

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
        self.pool_heads = latent.num_heads
        # Eva pools all tokens; other trunks say so.
        self.pool_sees_prefix = getattr(self.trunk, "pool_include_prefix", True)

    @staticmethod
    def matches(visual: nn.Module) -> bool:
        """Return whether the trunk is a timm ViT with an attention pool."""
        trunk = trunk_of(visual)
        return trunk is not None and trunk.attn_pool is not None

    def direct_modules(self, *, attention: bool) -> list[nn.Module]:
        return [self.latent]

    def prepare_pool(self, tokens: Tensor) -> Tensor:
        return self.trunk.norm(tokens)

    def pool_query(self) -> Tensor:
        return self.latent.q_norm(split_heads(self.latent.q(self.latent.latent), self.pool_heads))

    def pool_key_value(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.latent.kv(tokens).chunk(2, dim=-1)
        return self.latent.k_norm(split_heads(k, self.pool_heads)), v

    def pool_answer(self, attended: Tensor, *, whole: bool) -> Tensor:
        x = self.latent.proj(attended)
        if whole:
            x = x + self.mlp(self.latent.norm(x))
        return self.project_pooled(x)
