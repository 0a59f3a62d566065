"""Rename the keys of foreign checkpoints to open_clip's or UNetHead's.

Pure functions: models never see a foreign name.

Known layouts: open_clip (also OpenAI's, which has the same names), EVA-CLIP (original and as
released by CLIPSelf), transformers' SigLIP 2 and TIPSv2, and ours (`clip.` in front). A text tower
without the `text.` prefix is moved there where the model has one.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from clim_models.checkpoints.transformers_layouts import from_transformers, transformers_layout

# Entries that describe an OpenAI archive and are not weights. They mark a QuickGELU model.
OPENAI_MARKS = ("input_resolution", "context_length", "vocab_size")
TEXT_PARTS = (
    "text_projection",
    "positional_embedding",
    "token_embedding",
    "transformer.",
    "ln_final.",
)
EVA_NAMES = (
    ("attn.inner_attn_ln.", "attn.norm."),
    ("mlp.ffn_ln.", "mlp.norm."),
    ("mlp.w1.", "mlp.fc1_g."),
    ("mlp.w2.", "mlp.fc1_x."),
    ("mlp.w3.", "mlp.fc2."),
)
# Biases of EVA models whose query, key and value have projections of their own.
EVA_SEPARATE = (("attn.q_bias", "attn.q_proj.bias"), ("attn.v_bias", "attn.v_proj.bias"))

# mmsegmentation's U-Net, as released by F-LMM, -> UNetHead. The number after encoder.i. counts the
# pooling before it.
UNET_NAMES = (
    (r"^encoder\.(\d+)\.[01]\.convs\.", r"encoder.\1."),
    (r"^decoder\.(\d+)\.conv_block\.convs\.", r"decoder.\1.fuse."),
    (r"^decoder\.(\d+)\.upsample\.interp_upsample\.1\.", r"decoder.\1.reduce."),
    (r"\.conv\.", ".0."),
    (r"\.gn\.", ".1."),
    (r"^conv_seg\.", "predict."),
)


def unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a training checkpoint.

    Looks inside `state_dict`, `model` or `module`, and strips prefixes that all keys share.

    Raises:
        ValueError: there is no mapping of tensors inside.
    """
    for key in ("state_dict", "model", "module"):
        if isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]

    tensors = {str(k): v for k, v in checkpoint.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ValueError(
            f"no weights in this file (top-level keys: {sorted(map(str, checkpoint))[:8]}); pass a "
            "state dict or a checkpoint that holds one under 'state_dict'"
        )

    for prefix in ("module.", "_orig_mod.", "clip."):
        if all(k.startswith(prefix) for k in tensors):
            tensors = {k[len(prefix) :]: v for k, v in tensors.items()}
    return tensors


def recognise(keys: set[str]) -> str:
    """Return the name of the layout: "eva-clip", "openai", "open_clip", or one of transformers."""
    from_hub = transformers_layout(keys)
    if from_hub is not None:
        return from_hub
    has_eva_parts = any(".inner_attn_ln." in key or "attn.rope.freqs" in key for key in keys)
    if has_eva_parts or "visual.pos_embed" in keys:
        return "eva-clip"
    return "openai" if OPENAI_MARKS[0] in keys else "open_clip"


def to_open_clip(tensors: Mapping[str, Tensor], *, text_prefix: bool) -> dict[str, Tensor]:
    """Rename every key to open_clip's.

    Args:
        tensors: weights in any known layout.
        text_prefix: the model keeps its text tower under `text.` (CustomTextCLIP).
    """
    layout = recognise(set(tensors))
    if transformers_layout(set(tensors)) is not None:
        return from_transformers(tensors, layout)
    eva_names = [*EVA_NAMES]
    if any(".attn.q_proj." in key for key in tensors):
        eva_names += EVA_SEPARATE

    renamed = {}
    for key, value in tensors.items():
        # Descriptions and recomputed tables are no weights.
        if key in OPENAI_MARKS or ".rope.freqs_" in key:
            continue
        name = _eva_name(key, eva_names) if layout == "eva-clip" else key
        if text_prefix and name.startswith(TEXT_PARTS):
            name = f"text.{name}"
        renamed[name] = value

    # Some releases keep the scale in the text tower.
    if text_prefix and "text.logit_scale" in renamed:
        renamed["logit_scale"] = renamed.pop("text.logit_scale")
    return renamed


def _eva_name(key: str, names: Sequence[tuple[str, str]]) -> str:
    if not key.startswith("visual."):
        return key
    name = "visual.trunk." + key.removeprefix("visual.")
    for old, new in names:
        name = name.replace(old, new)
    return name


def to_unet_head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of F-LMM's released mask head to those of UNetHead.

    Args:
        tensors: without the prefix `mask_head.`. Keys of UNetHead stay as they are.
    """
    if not any(k.startswith("conv_seg.") for k in tensors):
        return dict(tensors)
    return {rename_key(key, UNET_NAMES): value for key, value in tensors.items()}


def rename_key(key: str, names: Sequence[tuple[str, str]]) -> str:
    """Replace each pattern in a name by its new text, in their order."""
    for pattern, name in names:
        key = re.sub(pattern, name, key)
    return key
