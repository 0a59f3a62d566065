"""Builders of tiny RegionModels of every kind, from the sidecars of golden cases or from small
configurations.

Tests import them as `from tiny_towers import build_vit` (pytest puts this folder on the path).
"""

import timm
import torch
from clim_models import RegionModel, load_checkpoint
from device import DEVICE
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
            "image_size": 64,
            "timm_model_name": name,
            "timm_pool": pool,
            "timm_proj": proj,
        },
        "text_cfg": TEXT,
    }
    torch.manual_seed(0)
    model = RegionModel(CustomTextCLIP(**config), **options).eval()
    with torch.no_grad():
        for p in model.visual.parameters():  # away from zero-initialised heads, gains and biases
            p.add_(torch.randn_like(p) * 0.02)
    model.config, model.name = config, name
    return model


def build_vit(*, quick_gelu: bool = True, layers: int = 3, **options) -> RegionModel:
    """A small open_clip ViT with random weights."""
    vision = {"image_size": 32, "layers": layers, "width": 64, "head_width": 32, "patch_size": 8}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT, "quick_gelu": quick_gelu}
    torch.manual_seed(0)
    model = RegionModel(CLIP(**config), **options).eval()
    model.config, model.name = config, "vit-tiny-test"
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
