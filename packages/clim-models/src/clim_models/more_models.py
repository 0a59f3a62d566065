"""Models that timm and transformers have and open_clip has no name for.

SigLIP 2 NaFlex: timm's image tower and open_clip's own text tower. TIPSv2
(arXiv 2604.12012): timm's image tower and transformers' text tower. Importing this module makes
their names known to open_clip. Weights are those of the transformers repositories, as files.

What has no text tower in any of these libraries is refused by its name.
"""

import math
from typing import Any

import open_clip
import timm
from open_clip.model import CustomTextCLIP

from clim_models.open_clip_compat import build_transformers_text, register_config

# Our name -> open_clip's model with the same text tower, and the trunk.
_NAFLEX = {
    "ViT-B-16-SigLIP2-NaFlex": ("ViT-B-16-SigLIP2", "naflexvit_base_patch16_siglip"),
    "ViT-SO400M-16-SigLIP2-NaFlex": (
        "ViT-SO400M-16-SigLIP2-256",
        "naflexvit_so400m_patch16_siglip",
    ),
}
# Our name -> trunk, and the text tower's width, hidden width, heads and layers; the sizes and the
# temperatures are those of the configurations in the repositories below.
_TIPSV2 = {
    "TIPSv2-B-14": ("vit_base_patch14_reg1_tipsv2", (768, 3072, 12, 12)),
    "TIPSv2-L-14": ("vit_large_patch14_reg1_tipsv2", (1024, 4096, 16, 12)),
    "TIPSv2-SO400M-14": ("vit_so400m_patch14_reg1_tipsv2", (1152, 4304, 16, 27)),
    "TIPSv2-g-14": ("vit_giant_patch14_reg1_tipsv2", (1536, 6144, 24, 12)),
}
# Released files do not hold their temperature.
_TEMPERATURES = {
    "TIPSv2-B-14": 0.005065968260169029,
    "TIPSv2-L-14": 0.004785141441971064,
    "TIPSv2-SO400M-14": 0.004638021811842918,
    "TIPSv2-g-14": 0.003622700460255146,
}
_REPOSITORIES = {
    "ViT-B-16-SigLIP2-NaFlex": "google/siglip2-base-patch16-naflex",
    "ViT-SO400M-16-SigLIP2-NaFlex": "google/siglip2-so400m-patch16-naflex",
    "TIPSv2-B-14": "google/tipsv2-b14",
    "TIPSv2-L-14": "google/tipsv2-l14",
    "TIPSv2-SO400M-14": "google/tipsv2-so400m14",
    "TIPSv2-g-14": "google/tipsv2-g14",
}
# Parts of names, in lower case without signs, and what is true of such models.
_REFUSED = {
    "dinotxt": (
        "the text tower of DINOv3 (dino.txt) is in no library that this project builds on: "
        "open_clip, timm and transformers have the image tower only. Use TIPSv2-L-14 or "
        "PE-Core-L-14-336, or DINOv3's trunk with a text tower of your own"
    ),
    "peaudio": "PE-Audio has no image tower; PE-Core-* are the CLIPs of that family",
    "pelang": "PE-Lang was released without a text tower; PE-Core-* have one",
    "pespatial": "PE-Spatial was released without a text tower; PE-Core-* have one",
    "genlip": "GenLIP writes captions and has no image feature that regions could share",
    "genlap": "GenLAP hears audio and has no image tower",
    "clap": "CLAP hears audio and has no image tower",
}
_REFUSED["dinov3"] = _REFUSED["dinotxt"]

MORE_MODELS = (*_NAFLEX, *_TIPSV2)


def is_tipsv2(name: str) -> bool:
    """Return whether a name is one of TIPSv2's, whose text tower open_clip cannot build."""
    return name in _TIPSV2


def weights_repository(name: str) -> str | None:
    """Return the repository of the hub that has the weights of one of these models."""
    return _REPOSITORIES.get(name)


def why_refused(name: str) -> str | None:
    """Return why there is no model of a well-known name, or None where nothing is known."""
    if name in MORE_MODELS:
        return "this timm does not have its image tower: pip install -U timm"
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    return next((reason for part, reason in _REFUSED.items() if part in plain), None)


def build_tipsv2(config: dict[str, Any]) -> CustomTextCLIP:
    """Build TIPSv2 with random weights: timm's image tower, transformers' text tower.

    Args:
        config: the model_cfg of a TIPSv2 name.

    Raises:
        ImportError: this transformers does not have TIPSv2; the message has the `pip install` line.
    """
    text = config["text_cfg"]
    sizes = {
        "vocab_size": text["vocab_size"],
        "hidden_size": text["width"],
        "intermediate_size": text["hidden_width"],
        "num_attention_heads": text["heads"],
        "num_hidden_layers": text["layers"],
        "max_position_embeddings": text["context_length"],
    }
    try:
        tower = build_transformers_text("tipsv2_text_model", sizes, config["embed_dim"])
    except ImportError as error:
        raise ImportError(
            f"the text tower of TIPSv2 is that of transformers, and {error}: "
            'pip install -U "transformers>=5.23,<6"'
        ) from error

    # open_clip builds the image tower; its smallest text tower is a place holder.
    place = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}
    clip = CustomTextCLIP(
        config["embed_dim"],
        dict(config["vision_cfg"]),
        place,
        init_logit_scale=config["init_logit_scale"],
    )
    clip.text = tower
    clip.context_length = text["context_length"]
    clip.vocab_size = text["vocab_size"]
    return clip


def _naflex_config(name: str) -> dict[str, Any] | None:
    """Return open_clip's configuration of the model with the same text tower, with the trunk."""
    like, trunk = _NAFLEX[name]
    config = open_clip.get_model_config(like)
    if config is None:
        return None
    vision = {"image_size": 256, "timm_model_name": trunk}
    config["vision_cfg"] = {**vision, "timm_pool": "map", "timm_proj": "none"}
    return config


def _tipsv2_config(name: str) -> dict[str, Any]:
    trunk, (width, hidden_width, heads, layers) = _TIPSV2[name]
    return {
        "embed_dim": width,
        "custom_text": True,
        "init_logit_scale": -math.log(_TEMPERATURES[name]),
        "vision_cfg": {
            "image_size": 448,
            "timm_model_name": trunk,
            "timm_pool": "token",
            "timm_proj": "none",
        },
        "text_cfg": {
            "context_length": 64,
            "vocab_size": 32000,
            "hf_tokenizer_name": _REPOSITORIES[name],
            "width": width,
            "hidden_width": hidden_width,
            "heads": heads,
            "layers": layers,
        },
    }


def _register() -> None:
    """Make the names known to open_clip, of those models whose trunk this timm has."""
    known = set(open_clip.list_models())
    for name in _NAFLEX:
        config = _naflex_config(name)
        if name not in known and config is not None and timm.is_model(_NAFLEX[name][1]):
            register_config(name, config)
    for name, (trunk, _) in _TIPSV2.items():
        if name not in known and timm.is_model(trunk):
            register_config(name, _tipsv2_config(name))


_register()
