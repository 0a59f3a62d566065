"""Other people's key names -> those of transformers or ours. Pure functions; models never see a
foreign name."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

# DeepSeek-VL as released by deepseek-ai -> transformers. The language model is one of transformers,
# the SigLIP tower one of timm; the 7B model also has a SAM tower.
_LOW = r"^vision_model\.vision_tower(?:_low\.vision_tower)?\."
_HIGH = r"^vision_model\.vision_tower_high\.vision_tower\."
_SAM = "model.high_res_vision_model.vision_encoder."
_RULES = (
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^language_model\.model\.", "model.language_model."),
    (r"^aligner\.layers\.0\.", "model.aligner.linear1."),
    (r"^aligner\.layers\.1\.", "model.aligner.proj."),
    (r"^aligner\.layers\.2\.", "model.aligner.linear2."),
    (r"^aligner\.high_up_proj\.", "model.aligner.high_res_vision_proj."),
    (r"^aligner\.low_up_proj\.", "model.aligner.vision_proj."),
    (f"{_HIGH}pos_embed$", f"{_SAM}pos_embed"),
    (rf"{_HIGH}patch_embed\.proj\.", f"{_SAM}patch_embed.projection."),
    (rf"{_HIGH}blocks\.(\d+)\.norm([12])\.", rf"{_SAM}layers.\1.layer_norm\2."),
    (rf"{_HIGH}blocks\.(\d+)\.", rf"{_SAM}layers.\1."),
    (rf"{_HIGH}neck\.0\.", f"{_SAM}neck.conv1."),
    (rf"{_HIGH}neck\.1\.", f"{_SAM}neck.layer_norm1."),
    (rf"{_HIGH}neck\.2\.", f"{_SAM}neck.conv2."),
    (rf"{_HIGH}neck\.3\.", f"{_SAM}neck.layer_norm2."),
    (rf"{_HIGH}neck_hd\.0\.", "model.high_res_vision_neck.conv1."),
    (rf"{_HIGH}neck_hd\.1\.", "model.high_res_vision_neck.layer_norm1."),
    (rf"{_HIGH}neck_hd\.2\.", "model.high_res_vision_neck.conv2."),
    (rf"{_HIGH}neck_hd\.3\.", "model.high_res_vision_neck.layer_norm2."),
    (rf"{_HIGH}downsamples\.0\.", "model.high_res_vision_proj.conv1."),
    (rf"{_HIGH}downsamples\.1\.", "model.high_res_vision_proj.conv2."),
    (f"{_HIGH}hd_alpha_downsamples$", "model.high_res_vision_alpha"),
    (rf"{_LOW}patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (f"{_LOW}pos_embed$", "vision.embeddings.position_embedding.weight"),
    (rf"{_LOW}norm\.", "vision.post_layernorm."),
    (rf"{_LOW}blocks\.(\d+)\.norm([12])\.", r"vision.encoder.layers.\1.layer_norm\2."),
    (
        rf"{_LOW}blocks\.(\d+)\.attn\.proj\.",
        r"vision.encoder.layers.\1.self_attn.out_proj.",
    ),
    (rf"{_LOW}blocks\.(\d+)\.", r"vision.encoder.layers.\1."),
    (rf"{_LOW}attn_pool\.latent$", "vision.head.probe"),
    (rf"{_LOW}attn_pool\.proj\.", "vision.head.attention.out_proj."),
    (rf"{_LOW}attn_pool\.norm\.", "vision.head.layernorm."),
    (rf"{_LOW}attn_pool\.", "vision.head."),
)
# Two norms in the files of the 7B model that nothing uses.
_UNUSED = ("vision_model.high_layer_norm.", "vision_model.low_layer_norm.")


def deepseek_to_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights of DeepSeek-VL 1.3B or 7B from its authors' layout to transformers'."""
    renamed: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if key.startswith(_UNUSED):
            continue
        name = key
        for pattern, replacement in _RULES:
            name, found = re.subn(pattern, replacement, key)
            if found:
                break
        low = name.startswith("vision.")
        name = re.sub(r"^vision\.", "model.vision_model.", name)
        if low and ".attn.qkv." in name:
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


def siglip_sizes(tensors: Mapping[str, Tensor], *, heads: int) -> dict[str, Any]:
    """Read the sizes of the SigLIP tower from its weights, under transformers' names.

    Args:
        heads: of its attention; they do not follow from the weights.
    """
    tower = "model.vision_model."
    patches = tensors[f"{tower}embeddings.patch_embedding.weight"]  # (C, 3, p, p)
    positions = tensors[f"{tower}embeddings.position_embedding.weight"]  # (n * n, C)
    return {
        "hidden_size": len(patches),
        "intermediate_size": len(tensors[f"{tower}encoder.layers.0.mlp.fc1.weight"]),
        "num_hidden_layers": _layers(tensors, f"{tower}encoder.layers."),
        "num_attention_heads": heads,
        "image_size": round(len(positions) ** 0.5) * patches.shape[-1],
        "patch_size": patches.shape[-1],
        "hidden_act": "gelu",
        "vision_use_head": f"{tower}head.probe" in tensors,
    }


def sam_sizes(tensors: Mapping[str, Tensor], *, global_layers: Sequence[int]) -> dict[str, Any]:
    """Read the sizes of the SAM tower of the 7B model from its weights, under transformers' names.

    A layer has 2 * n - 1 relative positions along an axis: n is the side of its windows, or of the
    whole grid where it attends to the whole image.

    Args:
        global_layers: layers that attend to the whole image, for a tower whose windows are as large
            as its grid; otherwise the weights tell them.
    """
    patches = tensors[f"{_SAM}patch_embed.projection.weight"]  # (C, 3, p, p)
    positions = tensors[f"{_SAM}pos_embed"]  # (1, h, w, C)
    layers = _layers(tensors, f"{_SAM}layers.")
    relative = [tensors[f"{_SAM}layers.{layer}.attn.rel_pos_h"] for layer in range(layers)]
    sides = [(len(of_layer) + 1) // 2 for of_layer in relative]  # of_layer: (2 n - 1, C / heads)
    grid = positions.shape[1]
    if len(set(sides)) > 1:
        global_layers = [layer for layer, side in enumerate(sides) if side == grid]
    return {
        "hidden_size": len(patches),
        "mlp_dim": len(tensors[f"{_SAM}layers.0.mlp.lin1.weight"]),
        "output_channels": len(tensors[f"{_SAM}neck.conv1.weight"]),
        "num_hidden_layers": layers,
        "num_attention_heads": len(patches) // relative[0].shape[1],
        "image_size": grid * patches.shape[-1],
        "patch_size": patches.shape[-1],
        "window_size": next((side for side in sides if side != grid), grid),
        "global_attn_indexes": list(global_layers),
        "hidden_act": "gelu",
    }


def _layers(tensors: Mapping[str, Tensor], prefix: str) -> int:
    names = [name.removeprefix(prefix) for name in tensors if name.startswith(prefix)]
    return len({name.split(".")[0] for name in names})


def deepseek_config(
    language: Mapping[str, Any],
    *,
    siglip: Mapping[str, Any],
    sam: Mapping[str, Any] | None = None,
    image_token_id: int,
) -> Any:
    """Make transformers' configuration of a DeepSeek-VL.

    Args:
        language: `language_config` of the authors' config.json.
        siglip: as `siglip_sizes`.
        sam: as `sam_sizes`; None for the 1.3B model, which has no such tower.
        image_token_id: id of `<image_placeholder>`.
    """
    from transformers import DeepseekVLConfig, DeepseekVLHybridConfig  # seconds to import

    parts: dict[str, Any] = {
        "text_config": {"model_type": "llama", **language},
        "vision_config": {"model_type": "siglip_vision_model", **siglip},
        "image_token_id": image_token_id,
        "tie_word_embeddings": False,
    }
    if sam is None:
        return DeepseekVLConfig(**parts)
    return DeepseekVLHybridConfig(
        **parts, high_res_vision_config={"model_type": "sam_vision_model", **sam}
    )
