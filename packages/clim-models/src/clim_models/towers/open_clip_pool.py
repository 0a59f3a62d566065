"""open_clip ViTs with CoCa's attentional pooler.

The first of its queries gives the image feature; the others are for the text decoder, so they are
not computed here.
"""

from typing import Any

import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from clim_models.towers.attention import split_heads
from clim_models.towers.open_clip_vit import OpenClipViT
from clim_models.towers.pooled_tower import PooledTower
from clim_models.towers.tower import GradientPath


class AttentionPooledViT(PooledTower, OpenClipViT):
    """Reader of open_clip ViTs with an attentional pooler, as CoCa releases have it.

    Raises:
        ValueError: two poolers in a row or side by side, or a pool whose image feature is a mean.
    """

    def __init__(self, visual: nn.Module, *, antialias: bool):
        assert isinstance(visual, VisionTransformer)
        if visual.attn_pool_contrastive is not None or visual.pool_type != "tok":
            raise ValueError(
                "attentional poolers of type 'parallel' and 'cascade', and those that average "
                "their queries, are not supported; use attentional_pool=true with pool_type='tok'"
            )
        super().__init__(visual, antialias=antialias)
        self.pool = "map"
        pooler = visual.attn_pool
        # open_clip has no types; from version 4 on the attention is a class of its own.
        self.pooler: Any = pooler
        self.ln_q: nn.Module = pooler.ln_q
        self.ln_k: nn.Module = pooler.ln_k
        self.attn: Any = pooler.attn
        self.out_proj: nn.Linear = pooler.attn.out_proj
        self.pool_heads = pooler.attn.num_heads
        self.pool_width = self.out_proj.in_features

    @staticmethod
    def matches(visual: nn.Module) -> bool:
        """Return whether `visual` is open_clip's VisionTransformer with an attentional pooler."""
        return isinstance(visual, VisionTransformer) and visual.attn_pool is not None

    def direct_modules(self, *, attention: bool) -> list[nn.Module]:
        return [self.pooler]

    def prepare_pool(self, tokens: Tensor) -> Tensor:
        return self.ln_k(tokens)

    def pool_query(self) -> Tensor:
        first = self.ln_q(self.pooler.query[None, :1])  # (1, 1, H*d)
        return split_heads(self._project(first, 0), self.pool_heads)

    def pool_key_value(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return split_heads(self._project(tokens, 1), self.pool_heads), self._project(tokens, 2)

    def pool_answer(self, attended: Tensor, *, whole: bool) -> Tensor:
        # There is no residual and no MLP in this pool, so both readouts are the same map.
        return self.project(F.linear(attended, self.out_proj.weight, self.out_proj.bias))

    def unused(self, path: GradientPath) -> list[nn.Parameter]:
        # The text decoder's queries share a tensor with the first.
        return []

    def _project(self, x: Tensor, part: int) -> Tensor:
        """Apply the query (0), key (1) or value (2) projection of the pool."""
        rows = slice(part * self.pool_width, (part + 1) * self.pool_width)
        weight = self.attn.in_proj_weight
        if weight is None:
            # Images and texts have different widths.
            names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
            weight = getattr(self.attn, names[part])
        else:
            weight = weight[rows]
        bias = self.attn.in_proj_bias
        return F.linear(x, weight, None if bias is None else bias[rows])
