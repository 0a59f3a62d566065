"""open_clip's blocks, as versions 3 and 4 build them."""

import copy

import pytest
import torch
from clim_models import RegionModel
from clim_models.towers import find_tower
from open_clip.model import CLIP
from open_clip.transformer import Attention, ResidualAttentionBlock
from tiny_towers import TEXT, build_vit
from torch import nn


class NewAttention(Attention):
    """Attention as open_clip 4 has it in plain blocks: a class of its own with the old weights.

    Made of version 3's class for custom blocks, which has the same parts; blocks call it with
    three inputs.
    """

    def forward(self, q, k=None, v=None, attn_mask=None, **options):
        return (super().forward(q, attn_mask=attn_mask),)


def as_version_4(model: RegionModel) -> RegionModel:
    """Return a copy whose blocks hold open_clip's own attention, with the same weights."""
    clip = copy.deepcopy(model.clip)
    for block in clip.visual.transformer.resblocks:
        weights = block.attn.state_dict()
        block.attn = NewAttention(block.attn.embed_dim, block.attn.num_heads)
        block.attn.load_state_dict(weights)
    return RegionModel(clip).eval()


def test_both_versions_give_the_same_features():
    old = build_vit()
    new = as_version_4(old)
    x = torch.randn(2, 3, 32, 48)
    boxes = [torch.tensor([[0.1, 0.2, 0.8, 0.9]])] * 2
    outputs = ("image", "dense", "dense_value", "boxes", "boxes_attention")
    with torch.no_grad():
        expected = old.encode_regions(x, boxes, outputs=outputs)
        found = new.encode_regions(x, boxes, outputs=outputs)
    for name, rows in expected.items():
        torch.testing.assert_close(found[name], rows, atol=1e-6, rtol=0)


def test_a_part_that_would_be_passed_over_is_refused_by_its_name():
    block = build_vit().visual.transformer.resblocks[-1]
    block.ln_3 = nn.LayerNorm(64)
    block.attn.relative = nn.Parameter(torch.zeros(3))
    with pytest.raises(ValueError, match=r"blocks with attn\.relative, ln_3 cannot be read"):
        find_tower(_tower_of(block))


def test_scaled_cosine_attention_is_refused():
    vision = {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 8}
    clip = CLIP(24, {**vision, "scaled_cosine_attn": True}, TEXT)
    with pytest.raises(ValueError, match=r"attn\.logit_scale.*none of scaled_cosine_attn"):
        RegionModel(clip)


def test_a_block_of_another_kind_is_refused():
    block = ResidualAttentionBlock(64, 2)
    block.attn = nn.Identity()
    with pytest.raises(ValueError, match=r"ResidualAttentionBlock have no attn\.in_proj_weight"):
        find_tower(_tower_of(block))


def _tower_of(block: nn.Module) -> nn.Module:
    visual = build_vit(layers=1).visual
    visual.transformer.resblocks[0] = block
    return visual
