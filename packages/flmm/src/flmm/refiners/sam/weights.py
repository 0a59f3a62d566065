"""A SAM from a file of the original layout (`sam_vit_{b,l,h}*.pth`) or in transformers' own.

SAM-HQ, SAM 2, SAM 3's tracker and EdgeTAM are read in transformers' layout. Names of the released
heads are here, too.

The original names -> transformers' pass through `to_transformers`, a pure function, whether the
tensors are a whole SAM or only the prompt encoder and mask decoder of a released F-LMM checkpoint.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from clim_models.checkpoints import read_checkpoint, unwrap
from torch import Tensor
from transformers import (
    PreTrainedModel,
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

from flmm.hub import check_parts_of_config, hub_options, read_or_explain

_FIX = (
    "pass a file like sam_vit_l_0b3195.pth, a folder with a SAM of transformers, or a hub id such "
    "as facebook/sam-vit-large or facebook/sam2.1-hiera-large; `none` refines nothing"
)
CLASSES = {
    "sam": "SamModel",
    "sam_hq": "SamHQModel",
    "sam2": "Sam2Model",
    "sam2_video": "Sam2Model",
    "sam3_tracker": "Sam3TrackerModel",
    "sam3_tracker_video": "Sam3TrackerModel",
    "sam3_video": "Sam3TrackerModel",
    "edgetam": "EdgeTamModel",
    "edgetam_video": "EdgeTamModel",
}
"""`model_type` of a config.json -> class of transformers for single images.

Models of films have the weights for single images, too."""
POSITIONS = "prompt_encoder.shared_embedding.positional_embedding"
SHARED_POSITIONS = "shared_image_embedding.positional_embedding"
# Original -> transformers, applied in this order.
NAMES = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"^vision_encoder\.patch_embed\.proj\.", "vision_encoder.patch_embed.projection."),
    (r"^vision_encoder\.blocks\.", "vision_encoder.layers."),
    (r"^vision_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
    (r"^vision_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
    (r"^vision_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
    (r"^vision_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
    (r"\.norm(\d|_final_attn)\.", r".layer_norm\1."),
    (r"^mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
    (r"^mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
    (r"^mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
    (r"^prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
    (r"^prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
    (r"^prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
    (r"^prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
    (r"^prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
    (r"^prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
    (r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$", POSITIONS),
)
# Small MLPs: the first layer is proj_in, the last proj_out, and those between are numbered from 0.
MLP_LAYER = re.compile(
    r"^(mask_decoder\.(?:iou_prediction_head|output_hypernetworks_mlps\.\d+))\.layers\.(\d+)\.(.+)$"
)


def to_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors from SAM's original names (all or some of them) to transformers'; its own
    names stay."""
    if (
        POSITIONS in tensors
        or SHARED_POSITIONS in tensors
        or any(".proj_in." in key for key in tensors)
    ):
        return dict(tensors)
    last: dict[str, int] = {}
    for key in tensors:
        if match := MLP_LAYER.match(key):
            last[match[1]] = max(last.get(match[1], 0), int(match[2]))
    renamed = {}
    for key, value in tensors.items():
        if match := MLP_LAYER.match(key):
            owner, number, leaf = match[1], int(match[2]), match[3]
            place = (
                "proj_in"
                if number == 0
                else "proj_out"
                if number == last[owner]
                else f"layers.{number - 1}"
            )
            key = f"{owner}.{place}.{leaf}"
        for old, new in NAMES:
            key = re.sub(old, new, key)
        renamed[key] = value
    return renamed


def load_sam(source: str | Path, *, decoder_heads: int = 8) -> PreTrainedModel:
    """Load a SAM of any kind with its weights, in float32 on the CPU.

    Args:
        source: a `.pth`/`.pt`/`.safetensors` file in the original layout, a folder in transformers'
            layout, or the name of a model on the Hugging Face hub. Its config.json says which kind
            it is.
        decoder_heads: heads of the mask decoder's attention, the one size that does not follow from
            weights in the original layout; 8 in every released SAM.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: the file is damaged, or no SAM: missing, unexpected and mis-shaped keys are
            listed.
    """
    path = Path(source)
    if not (path.is_file() or path.suffix in (".pth", ".pt", ".bin", ".safetensors")):
        return _from_folder(source)
    if not path.is_file():
        raise FileNotFoundError(f"there is no SAM {path}: {_FIX}")
    tensors = to_transformers(unwrap(read_checkpoint(path)))
    if POSITIONS not in tensors or "vision_encoder.pos_embed" not in tensors:
        raise ValueError(f"{path} is no whole SAM (it has {sorted(tensors)[:4]} ...): {_FIX}")
    tensors[SHARED_POSITIONS] = tensors[POSITIONS]
    with torch.device("meta"):  # no random weights first: ViT-H has 640 million
        model = SamModel(config_of(tensors, decoder_heads=decoder_heads))
    check_names(model.state_dict(), tensors, source=str(path))
    model.load_state_dict({k: v.float() for k, v in tensors.items()}, assign=True)
    return model.eval()


def _from_folder(source: str | Path) -> PreTrainedModel:
    """Load from a folder in transformers' layout, or from the hub."""
    import transformers

    where = hub_options(source, what="a SAM")
    raw, _ = read_or_explain(source, "config.json", SamConfig.get_config_dict, **where)
    if "model_type" not in raw:
        raise FileNotFoundError(f"{source} has no config.json of a model: {_FIX}")
    kind = raw["model_type"]
    if kind == "sam3":
        raise ValueError(
            f"{source} is SAM 3 with prompts of words, which takes no coarse mask: pass a folder "
            "whose config.json says sam3_tracker or sam3_video, such as facebook/sam3"
        )
    if kind not in CLASSES:
        raise ValueError(f"{source} is no SAM, but a model of type {kind!r}: {_FIX}")
    model_class = getattr(transformers, CLASSES[kind], None)
    if model_class is None:
        raise ValueError(
            f"this transformers has no {CLASSES[kind]}, which {source} needs: "
            "pip install --upgrade transformers"
        )
    check_parts_of_config(raw, source)
    model, loaded = read_or_explain(
        source,
        "the weights",
        model_class.from_pretrained,
        dtype=torch.float32,
        output_loading_info=True,
        **where,
    )
    if missing := sorted(loaded["missing_keys"]):
        raise ValueError(
            f"{source} lacks {len(missing)} weights, such as {', '.join(missing[:3])}; they would "
            f"be random: {_FIX}"
        )
    found: PreTrainedModel = model
    return found


def config_of(tensors: Mapping[str, Tensor], *, decoder_heads: int = 8) -> SamConfig:
    """Return the sizes of a whole SAM under transformers' names, read from the shapes of its
    weights."""
    encoder, decoder = "vision_encoder.", "mask_decoder."
    _, grid, _, width = tensors[f"{encoder}pos_embed"].shape
    patch = tensors[f"{encoder}patch_embed.projection.weight"].shape[-1]
    depth = _count(tensors, r"vision_encoder\.layers\.(\d+)\.")
    # Relative positions of a layer span 2 L - 1 of its L positions: the whole grid, or a window.
    spans, head_widths = [], []
    for i in range(depth):
        positions, head_width = tensors[f"{encoder}layers.{i}.attn.rel_pos_h"].shape
        spans.append((positions + 1) // 2)
        head_widths.append(head_width)
    channels = tensors[f"{decoder}iou_token.weight"].shape[1]
    attention = f"{decoder}transformer.layers.0."
    inner = tensors[f"{attention}cross_attn_token_to_image.q_proj.weight"].shape[0]
    mask_conv = tensors["prompt_encoder.mask_embed.conv2.weight"]
    iou_layers = _count(tensors, r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\.")
    return SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=width,
            output_channels=channels,
            num_hidden_layers=depth,
            num_attention_heads=width // head_widths[0],
            image_size=grid * patch,
            patch_size=patch,
            mlp_dim=tensors[f"{encoder}layers.0.mlp.lin1.weight"].shape[0],
            window_size=min(spans),
            global_attn_indexes=[i for i, span in enumerate(spans) if span == grid],
            num_pos_feats=channels // 2,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(
            hidden_size=channels,
            image_size=grid * patch,
            patch_size=patch,
            mask_input_channels=mask_conv.shape[0],
        ),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=channels,
            mlp_dim=tensors[f"{attention}mlp.lin1.weight"].shape[0],
            num_hidden_layers=_count(tensors, r"mask_decoder\.transformer\.layers\.(\d+)\."),
            num_attention_heads=decoder_heads,
            attention_downsample_rate=channels // inner,
            num_multimask_outputs=tensors[f"{decoder}mask_tokens.weight"].shape[0] - 1,
            iou_head_depth=iou_layers + 2,
            iou_head_hidden_dim=tensors[f"{decoder}iou_prediction_head.proj_in.weight"].shape[0],
            layer_norm_eps=1e-5,  # of the original decoder; transformers' default is 1e-6
        ),
    )


def check_names(
    own: Mapping[str, Tensor], new: Mapping[str, Tensor], *, source: str, what: str = "SAM"
) -> None:
    """Raise ValueError unless both have the same names and shapes; list what differs. `what`: `own`
    in messages."""
    missing, unexpected = sorted(own.keys() - new.keys()), sorted(new.keys() - own.keys())
    shapes = [
        f"{k} {tuple(new[k].shape)} for {tuple(own[k].shape)}"
        for k in own.keys() & new.keys()
        if new[k].shape != own[k].shape
    ]
    lists = (("missing", missing), ("unexpected", unexpected), ("mis-shaped", sorted(shapes)))
    found = [f"  {title} ({len(keys)}): {', '.join(keys[:8])}" for title, keys in lists if keys]
    if found:
        raise ValueError(
            "\n".join(
                [
                    f"{source} does not fit this {what}:",
                    *found,
                    f"Use weights that belong to this {what}",
                ]
            )
        )


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for key in tensors if (match := re.match(pattern, key))})
