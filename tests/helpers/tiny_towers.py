"""Builders of tiny RegionModels of every kind, from the sidecars of golden cases or from small
configurations.

Tests import them as `from tiny_towers import build_vit` (pytest puts this folder on the path).
"""

import pytest
import timm
import torch
from clim_models import RegionModel, load_checkpoint
from device import DEVICE
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from timm.models import register_model


def eva_config(meta: dict) -> dict:
    """open_clip's model_cfg for the EVA tower a sidecar describes; its trunk is registered with
    timm."""
    v = meta["config"]["vision_cfg"]
    sizes = (
        "width",
        "layers",
        "patch_size",
        "image_size",
        "head_width",
        "mlp_ratio",
        "pt_hw_seq_len",
    )
    name = "eva_golden_" + "_".join(str(v[key]).replace(".", "p") for key in sizes)

    def build(pretrained=False, **kwargs):
        kwargs.pop("pretrained_cfg", None)
        kwargs.pop("pretrained_cfg_overlay", None)
        kwargs.pop("cache_dir", None)
        return timm.models.eva.Eva(
            img_size=v["image_size"],
            patch_size=v["patch_size"],
            embed_dim=v["width"],
            depth=v["layers"],
            num_heads=v["width"] // v["head_width"],
            mlp_ratio=v["mlp_ratio"],
            qkv_fused=False,
            swiglu_mlp=True,
            scale_mlp=True,
            scale_attn_inner=True,
            use_rot_pos_emb=True,
            ref_feat_shape=(v["pt_hw_seq_len"], v["pt_hw_seq_len"]),
            **kwargs,
        )

    if not timm.is_model(name):
        build.__name__ = name
        build.__module__ = __name__
        register_model(build)
    return {
        "embed_dim": meta["config"]["embed_dim"],
        "vision_cfg": {
            "image_size": v["image_size"],
            "timm_model_name": name,
            "timm_pool": "token",
            "timm_proj": None,
        },
        "text_cfg": {
            k: meta["config"]["text_cfg"][k]
            for k in ("context_length", "vocab_size", "width", "heads", "layers")
        },
    }


def build_eva(case, **options) -> RegionModel:
    """RegionModel of an EVA golden case, weights loaded through the public loader."""
    config = eva_config(case.meta)
    model = RegionModel(CustomTextCLIP(**config), **options).eval()
    model.config, model.name = config, "eva-golden"
    model.load_report = load_checkpoint(model, case.under("sd/"))
    return model.to(DEVICE)


def build_clip(case, *, quick_gelu: bool = True, **options) -> RegionModel:
    """RegionModel of a ViT or ResNet golden case (OpenAI layout)."""
    c = case.meta["config"]
    vision = {k: v for k, v in c["vision_cfg"].items() if v is not None}
    config = {
        "embed_dim": c["embed_dim"],
        "vision_cfg": vision,
        "text_cfg": c["text_cfg"],
        "quick_gelu": quick_gelu,
    }
    model = RegionModel(CLIP(**config), **options).eval()
    model.config, model.name = config, "clip-golden"
    load_checkpoint(model, case.under("sd/"))
    return model.to(DEVICE)


SMALL = {"img_size": 64, "embed_dim": 48, "depth": 2, "num_heads": 3}
TEXT = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
TIMM = {
    "cls": (
        "vit_tiny_patch16_224",
        {"img_size": 64, "embed_dim": 48, "depth": 3, "num_heads": 3},
        "token",
        "linear",
    ),
    "avg": (
        "vit_tiny_patch16_224",
        {"img_size": 64, "embed_dim": 48, "depth": 3, "num_heads": 3},
        "avg",
        None,
    ),
    "siglip": (
        "vit_base_patch16_siglip_224",
        {"img_size": 64, "embed_dim": 48, "depth": 2, "num_heads": 3},
        "map",
        "none",
    ),
    "pe_core": (
        "vit_pe_core_tiny_patch16_384",
        {**SMALL, "attn_pool_num_heads": 3},
        "map",
        None,
    ),
    "pe_spatial": ("vit_pe_spatial_tiny_patch16_512", SMALL, "avg", "linear"),
    "eva_post_norm": (
        "eva02_enormous_patch14_clip_224",
        {**SMALL, "img_size": 56, "mlp_ratio": 2.0},
        "token",
        None,
    ),
    "dinov3": ("vit_small_patch16_dinov3", SMALL, "token", "linear"),
    "tips": ("vit_base_patch14_reg1_tipsv2", {**SMALL, "img_size": 56}, "token", "linear"),
    "naflex": (
        "naflexvit_base_patch16_siglip",
        {"embed_dim": 48, "depth": 2, "num_heads": 3, "pos_embed_grid_size": (4, 4)},
        "map",
        "none",
    ),
    "naflex_gap": (
        "naflexvit_base_patch16_gap",
        {"embed_dim": 48, "depth": 2, "num_heads": 3, "pos_embed_grid_size": (4, 4)},
        "avg",
        "linear",
    ),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, "", "linear"),
    "efficientnet": ("tf_efficientnet_lite0", {}, "avg", "linear"),
    "hybrid": (
        "vit_tiny_r_s16_p8_224",
        {"img_size": 64, "embed_dim": 48, "depth": 2, "num_heads": 3},
        "token",
        "linear",
    ),
}


def build_timm(kind: str, **options) -> RegionModel:
    """Small timm towers of every supported kind inside an open_clip model, random weights."""
    base, kwargs, pool, proj = TIMM[kind]
    if not timm.is_model(base):
        pytest.skip(f"timm {timm.__version__} has no {base}")
    name = f"tiny_{kind}_{base}"
    if not timm.is_model(name):

        def build(pretrained=False, **overrides):
            overrides = {
                k: v for k, v in overrides.items() if not k.startswith(("pretrained", "cache"))
            }
            return timm.create_model(base, pretrained=False, **{**kwargs, **overrides})

        build.__name__ = name
        build.__module__ = __name__
        register_model(build)
    embed = kwargs["embed_dim"] if proj == "none" else 24
    config = {
        "embed_dim": embed,
        "vision_cfg": {
            "image_size": kwargs.get("img_size", 64),
            "timm_model_name": name,
            "timm_pool": pool,
            "timm_proj": proj,
        },
        "text_cfg": TEXT,
    }
    torch.manual_seed(0)
    return _away_from_zero(RegionModel(CustomTextCLIP(**config), **options).eval(), config, name)


def build_vit(*, quick_gelu: bool = True, layers: int = 3, **options) -> RegionModel:
    """A small open_clip ViT with random weights."""
    vision = {"image_size": 32, "layers": layers, "width": 64, "head_width": 32, "patch_size": 8}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT, "quick_gelu": quick_gelu}
    torch.manual_seed(0)
    model = RegionModel(CLIP(**config), **options).eval()
    model.config, model.name = config, "vit-tiny-test"
    return model


def build_custom_vit(**options) -> RegionModel:
    """A small open_clip ViT whose blocks have every custom part that can be read."""
    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    parts = ("qk_norm", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
    config = {
        "embed_dim": 24,
        "vision_cfg": {**vision, "ls_init_value": 0.5, **dict.fromkeys(parts, True)},
        "text_cfg": TEXT,
    }
    torch.manual_seed(0)
    return _away_from_zero(RegionModel(CLIP(**config), **options).eval(), config, "vit-custom-test")


def build_coca(**options) -> RegionModel:
    """A small CoCa: an open_clip ViT with an attentional pooler."""
    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    pooler = {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    text = {**TEXT, "embed_cls": True, "output_tokens": True}
    config = {
        "embed_dim": 24,
        "vision_cfg": {**vision, **pooler},
        "text_cfg": text,
        "multimodal_cfg": {**TEXT, "attn_pooler_heads": 2},
    }
    torch.manual_seed(0)
    return _away_from_zero(RegionModel(CoCa(**config), **options).eval(), config, "coca-tiny-test")


def _away_from_zero(model: RegionModel, config: dict, name: str) -> RegionModel:
    """Move initial gains, scales and biases, so that no part is without effect."""
    with torch.no_grad():
        for p in model.visual.parameters():
            p.add_(torch.randn_like(p) * 0.02)
    model.config, model.name = config, name
    return model


def build_resnet(**options) -> RegionModel:
    vision = {
        "image_size": 96,
        "layers": [1, 1, 1, 1],
        "width": 8,
        "patch_size": None,
        "head_width": 64,
    }
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}
    torch.manual_seed(0)
    model = RegionModel(CLIP(**config), **options).eval()
    model.config, model.name = config, "resnet-tiny-test"
    return model
