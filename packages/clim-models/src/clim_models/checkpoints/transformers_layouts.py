"""Rename the keys of transformers' SigLIP 2 (NaFlex) and TIPSv2 to those of our open_clip models.

Pure functions. Query, key and value have layers of their own in transformers, and one layer here.
The files that TIPSv2's authors released have other names than transformers, which renames them as
it loads and saves.

Letters: D width, N positions, P side of a patch.
"""

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

SIGLIP2 = "transformers-siglip2"
TIPSV2 = "transformers-tipsv2"

# Entries that only such a file has.
MARKS = {
    "vision_model.head.probe": SIGLIP2,
    "vision_model.embeddings.register_tokens": TIPSV2,
    "vision_encoder.register_tokens": TIPSV2,
}

# How the rows of joint layers follow each other.
ORDER = ("q", "k", "v", "gate", "up")

Names = Sequence[tuple[str, str]]

_SIGLIP2_IMAGE: Names = (
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.trunk.embeds.proj."),
    (r"^vision_model\.encoder\.layers\.(\d+)\.", r"visual.trunk.blocks.\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.self_attn\.", ".attn."),
    (r"^vision_model\.post_layernorm\.", "visual.trunk.norm."),
    (r"^vision_model\.head\.probe$", "visual.trunk.attn_pool.latent"),
    (r"^vision_model\.head\.attention\.out_proj\.", "visual.trunk.attn_pool.proj."),
    (r"^vision_model\.head\.layernorm\.", "visual.trunk.attn_pool.norm."),
    (r"^vision_model\.head\.mlp\.", "visual.trunk.attn_pool.mlp."),
    (r"\.layer_norm(\d)\.", r".norm\1."),
)
_SIGLIP2_TEXT: Names = (
    (r"^text_model\.embeddings\.token_embedding\.", "text.token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "text.positional_embedding"),
    (r"^text_model\.encoder\.layers\.(\d+)\.", r"text.transformer.resblocks.\1."),
    (r"\.self_attn\.", ".attn."),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"^text_model\.final_layer_norm\.", "text.ln_final."),
    (r"^text_model\.head\.", "text.text_projection."),
)
_TIPSV2_IMAGE: Names = (
    (r"^vision_model\.embeddings\.cls_token$", "visual.trunk.cls_token"),
    (r"^vision_model\.embeddings\.register_tokens$", "visual.trunk.reg_token"),
    (
        r"^vision_model\.embeddings\.patch_embeddings\.projection\.",
        "visual.trunk.patch_embed.proj.",
    ),
    (r"^vision_model\.encoder\.layer\.(\d+)\.", r"visual.trunk.blocks.\1."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.", ".attn."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
    (r"^vision_model\.layernorm\.", "visual.trunk.norm."),
)
# The released names, in those of transformers where the parts are the same, else in timm's.
_TIPSV2_RELEASED: Names = (
    (r"^vision_encoder\.cls_token$", "vision_model.embeddings.cls_token"),
    (r"^vision_encoder\.mask_token$", "vision_model.embeddings.mask_token"),
    (r"^vision_encoder\.pos_embed$", "vision_model.embeddings.position_embeddings"),
    (r"^vision_encoder\.register_tokens$", "visual.trunk.reg_token"),
    (r"^vision_encoder\.", "visual.trunk."),
    (r"^(visual\..*\.mlp\.)(?:c_fc|w12)\.", r"\1fc1."),
    (r"^(visual\..*\.mlp\.)(?:c_proj|w3)\.", r"\1fc2."),
    (r"^text_encoder\.token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^text_encoder\.transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"^text_encoder\.ln_final\.", "text_model.final_layer_norm."),
    (r"\.ln_(\d)\.", r".layer_norm\1."),
    (r"^(text_model\..*)\.attn\.", r"\1.self_attn."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)


def transformers_layout(keys: set[str]) -> str | None:
    """Return which of transformers' layouts has these keys, or None."""
    return next((layout for mark, layout in MARKS.items() if mark in keys), None)


def from_transformers(tensors: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Rename and join weights of transformers.

    Args:
        tensors: the state dict of `Siglip2Model` (NaFlex) or `Tipsv2Model`.
        layout: as `transformers_layout` names it.
    """
    return _from_siglip2(tensors) if layout == SIGLIP2 else _from_tipsv2(tensors)


def _from_siglip2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for key, value in tensors.items():
        if key.startswith("vision_model."):
            found[_renamed(key, _SIGLIP2_IMAGE)] = value
        elif key.startswith("text_model."):
            found[_renamed(key, _SIGLIP2_TEXT)] = value
        else:  # logit_scale and logit_bias
            found[key] = value.reshape(())

    table = found.pop("vision_model.embeddings.position_embedding.weight", None)
    if table is not None:
        side = math.isqrt(len(table))
        found["visual.trunk.embeds.pos_embed"] = table.reshape(1, side, side, -1)  # (1, h, w, D)

    pool = "visual.trunk.attn_pool"
    for part in ("weight", "bias"):
        joint = found.pop(f"vision_model.head.attention.in_proj_{part}", None)
        if joint is not None:
            width = len(joint) // 3
            found[f"{pool}.q.{part}"] = joint[:width]
            found[f"{pool}.kv.{part}"] = joint[width:]
    found = _joined(found, r"^(visual\..*\.attn\.)(q|k|v)_proj\.(weight|bias)$", "qkv.")
    return _joined(found, r"^(text\..*\.attn\.)(q|k|v)_proj\.(weight|bias)$", "in_proj_")


def _from_tipsv2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for key, value in _from_released(tensors).items():
        name = _renamed(key, _TIPSV2_IMAGE) if key.startswith("vision_model.") else key
        found[re.sub(r"^text_model\.", "text.transformer.", name)] = value

    # The mask token is for pretraining only.
    found.pop("vision_model.embeddings.mask_token", None)
    table = found.pop("vision_model.embeddings.position_embeddings", None)
    if table is not None:
        # Here only patches have positions: the class token takes its own along.
        name = "visual.trunk.cls_token"
        found[name] = found[name] + table[:, :1]
        found["visual.trunk.pos_embed"] = table[:, 1:]  # (1, N, D)

    temperature = found.pop("temperature", None)
    if temperature is not None:
        found["logit_scale"] = -temperature.log().reshape(())
    found = _joined(found, r"^(visual\..*\.attn\.)(q|k|v)_proj\.(weight|bias)$", "qkv.")
    return _joined(found, r"^(visual\..*\.mlp\.)(gate|up)_proj\.(weight|bias)$", "fc1.")


def _from_released(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a file of TIPSv2's authors, and take the joint layers of its text tower apart.

    Another file is returned as it is.
    """
    found = {}
    for key, value in tensors.items():
        name = _renamed(key, _TIPSV2_RELEASED) if "_encoder." in key else key
        joint = re.fullmatch(r"(text_model\..*\.self_attn\.)in_proj_(weight|bias)", name)
        if joint is None:
            found[name] = value
            continue
        layer, part = joint.groups()
        for one, rows in zip("qkv", value.chunk(3), strict=True):
            found[f"{layer}{one}_proj.{part}"] = rows
    return found


def _joined(tensors: Mapping[str, Tensor], pattern: str, name: str) -> dict[str, Tensor]:
    """Join layers that are one layer here.

    Args:
        pattern: groups are what stands before the layer's name, the name, and weight or bias.
        name: of the joint layer.
    """
    found = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        match = re.match(pattern, key)
        if match is None:
            found[key] = value
        else:
            before, part, kind = match.groups()
            parts.setdefault(f"{before}{name}{kind}", {})[part] = value
    for key, rows in parts.items():
        order = sorted(rows, key=ORDER.index)
        found[key] = torch.cat([rows[part] for part in order])
    return found


def _renamed(key: str, names: Names) -> str:
    for pattern, name in names:
        key = re.sub(pattern, name, key)
    return key
