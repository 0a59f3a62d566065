"""Other people's key names -> those of transformers or ours. Pure functions; models never see a
foreign name."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# DeepSeek-VL as released by deepseek-ai (language model of transformers, SigLIP tower of timm) ->
# transformers.
_DEEPSEEK = (
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^language_model\.model\.", "model.language_model."),
    (r"^aligner\.layers\.0\.", "model.aligner.linear1."),
    (r"^aligner\.layers\.2\.", "model.aligner.linear2."),
    (r"^vision_model\.vision_tower\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (r"^vision_model\.vision_tower\.pos_embed$", "vision.embeddings.position_embedding.weight"),
    (r"^vision_model\.vision_tower\.norm\.", "vision.post_layernorm."),
    (
        r"^vision_model\.vision_tower\.blocks\.(\d+)\.norm1\.",
        r"vision.encoder.layers.\1.layer_norm1.",
    ),
    (
        r"^vision_model\.vision_tower\.blocks\.(\d+)\.norm2\.",
        r"vision.encoder.layers.\1.layer_norm2.",
    ),
    (
        r"^vision_model\.vision_tower\.blocks\.(\d+)\.attn\.proj\.",
        r"vision.encoder.layers.\1.self_attn.out_proj.",
    ),
    (r"^vision_model\.vision_tower\.blocks\.(\d+)\.", r"vision.encoder.layers.\1."),
    (r"^vision_model\.vision_tower\.attn_pool\.latent$", "vision.head.probe"),
    (r"^vision_model\.vision_tower\.attn_pool\.proj\.", "vision.head.attention.out_proj."),
    (r"^vision_model\.vision_tower\.attn_pool\.norm\.", "vision.head.layernorm."),
    (r"^vision_model\.vision_tower\.attn_pool\.", "vision.head."),
)


def deepseek_to_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights of DeepSeek-VL 1.3B from its authors' layout to transformers'."""
    renamed: dict[str, Tensor] = {}
    for key, value in tensors.items():
        name = key
        for pattern, replacement in _DEEPSEEK:
            name, found = re.subn(pattern, replacement, key)
            if found:
                break
        name = re.sub(r"^vision\.", "model.vision_model.", name)
        if ".attn.qkv." in name:
            for letter, part in zip("qkv", value.chunk(3)):
                renamed[name.replace("attn.qkv.", f"self_attn.{letter}_proj.")] = part
        elif name.endswith("position_embedding.weight"):
            renamed[name] = value[0]
        else:
            renamed[name] = value

    # The projections of the attention pool's query and of its keys and values are one in torch.
    pool = "model.vision_model.head."
    for kind in ("weight", "bias"):
        query = renamed.pop(f"{pool}q.{kind}", None)
        keys_values = renamed.pop(f"{pool}kv.{kind}", None)
        if query is not None and keys_values is not None:
            joined = torch.cat([query, keys_values])
            renamed[f"{pool}attention.in_proj_{kind}"] = joined
    return renamed


def deepseek_config(
    language: Mapping[str, Any], *, tower: Mapping[str, Any], image_token_id: int
) -> Any:
    """Make transformers' configuration of a DeepSeek-VL from its authors' configuration.

    Args:
        language: `language_config` of the authors' config.json.
        tower: image_size, patch_size, width, layers, heads and mlp_ratio of its SigLIP tower.
        image_token_id: id of `<image_placeholder>`.
    """
    from transformers import DeepseekVLConfig  # seconds to import

    width = tower["width"]
    vision = {
        "hidden_size": width,
        "intermediate_size": int(width * tower["mlp_ratio"]),
        "num_hidden_layers": tower["layers"],
        "num_attention_heads": tower["heads"],
        "image_size": tower["image_size"],
        "patch_size": tower["patch_size"],
        "hidden_act": "gelu",
    }
    return DeepseekVLConfig(
        text_config={"model_type": "llama", **language},
        vision_config={"model_type": "siglip_vision_model", **vision},
        image_token_id=image_token_id,
        tie_word_embeddings=False,
    )
