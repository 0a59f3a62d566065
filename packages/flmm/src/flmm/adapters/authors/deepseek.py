"""DeepSeek-VL 1.3B and 7B from their authors' files, which transformers does not read.

Configuration, weights and image processor of deepseek-ai/deepseek-vl-1.3b-chat and -7b-chat go into
transformers' own classes, exactly.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flmm.adapters.authors.deepseek_names import (
    deepseek_config,
    deepseek_to_transformers,
    sam_sizes,
    siglip_sizes,
)
from flmm.adapters.authors.weights import authors_folder, build_pretrained, read_weights
from flmm.hub import read_or_explain

PLACEHOLDER = "<image_placeholder>"
# Their configuration names the towers. All sizes follow from the weights except these: heads of a
# SigLIP tower, and the layers of a SAM tower that attend to the whole image. A configuration that
# has them ("heads", "global_attn_indexes" next to "model_name") comes before these tables.
SIGLIP_HEADS = {
    "siglip_large_patch16_384": 16,
    "siglip_so400m_patch14_384": 16,
    "siglip_so400m_patch14_224": 16,
}
SAM_GLOBAL_LAYERS: dict[str, tuple[int, ...]] = {"sam_b_downsample": (2, 5, 8, 11)}
ONE, TWO = "CLIPVisionTower", "HybridVisionTower"  # vision_config.cls of the 1.3B and the 7B model
LEAST_PX = 14  # smallest edge of the resized image, unless preprocessor_config.json has another
# Mean and deviation of the 7B model's towers, if their configuration has none.
HALF = (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_CONVERTED = (
    "use deepseek-community/deepseek-vl-1.3b-chat or -7b-chat, the same weights in transformers' "
    "layout"
)


def read_authors_model(
    name: str | Path, raw: dict[str, Any], *, dtype: torch.dtype, local_files_only: bool = False
) -> tuple[Any, Any, Any]:
    """Read (model, image processor, tokenizer) from a folder or hub id in the authors' layout.

    Args:
        raw: its config.json.
        local_files_only: take a model of the hub from the cache.

    Raises:
        FileNotFoundError: a file is missing. ValueError: it has other towers, or a file has other
            contents.
    """
    towers = _towers(raw, name)
    folder = authors_folder(name, local_files_only=local_files_only)
    tokenizer = _tokenizer(folder)
    token = tokenizer.convert_tokens_to_ids(PLACEHOLDER)
    if token is None or token == tokenizer.unk_token_id:
        raise ValueError(f"the tokenizer in {folder} has no {PLACEHOLDER}: {_CONVERTED}")

    about = _pixels(folder)
    tensors = deepseek_to_transformers(read_weights(folder))
    config = _config(raw["language_config"], towers, tensors, token=token, source=folder)
    processor = _image_processor(about, config, raw["vision_config"]["params"], source=folder)
    return _model(folder, config, tensors, dtype), processor, tokenizer


def _towers(raw: Mapping[str, Any], name: str | Path) -> tuple[int, tuple[int, ...] | None]:
    """Return the heads of the SigLIP tower, and the layers of the SAM tower that attend to the
    whole image, None for the 1.3B model."""
    vision = raw.get("vision_config", {})
    params = vision.get("params", {})
    two = vision.get("cls") == TWO
    low = params.get("low_res_cfg", {}) if two else params
    high = params.get("high_res_cfg", {}) if two else {}
    heads = low.get("heads", SIGLIP_HEADS.get(low.get("model_name", "")))
    layers = high.get("global_attn_indexes", SAM_GLOBAL_LAYERS.get(high.get("model_name", "")))
    known = heads is not None and (layers is not None or not two)
    if not known or vision.get("cls") not in (ONE, TWO) or "language_config" not in raw:
        names = f"{low.get('model_name')}, {high.get('model_name', '') if two else None}"
        raise ValueError(
            f"{name} is in the layout of DeepSeek-VL's authors, with a vision tower "
            f"{vision.get('cls')!r} ({names}) that flmm does not know: {_CONVERTED}"
        )
    return heads, None if layers is None else tuple(layers)


def _config(
    language: Mapping[str, Any],
    towers: tuple[int, tuple[int, ...] | None],
    tensors: Mapping[str, Tensor],
    *,
    token: int,
    source: Path,
) -> Any:
    heads, layers = towers
    try:
        siglip = siglip_sizes(tensors, heads=heads)
        sam = None if layers is None else sam_sizes(tensors, global_layers=layers)
    except KeyError as missing:
        raise ValueError(
            f"the weights in {source} are not those of DeepSeek-VL: missing {missing}; {_CONVERTED}"
        ) from None
    if siglip["hidden_size"] % heads:
        raise ValueError(
            f"a SigLIP tower of width {siglip['hidden_size']} in {source} cannot have {heads} "
            f"heads: {_CONVERTED}"
        )
    return deepseek_config(language, siglip=siglip, sam=sam, image_token_id=token)


def _model(folder: Path, config: Any, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Any:
    from transformers import (
        DeepseekVLForConditionalGeneration,
        DeepseekVLHybridForConditionalGeneration,
    )

    hybrid = config.model_type == "deepseek_vl_hybrid"
    return build_pretrained(
        DeepseekVLHybridForConditionalGeneration if hybrid else DeepseekVLForConditionalGeneration,
        config,
        tensors,
        dtype=dtype,
        source=folder,
        what=f"DeepSeek-VL {'7B' if hybrid else '1.3B'}",
        fix=_CONVERTED,
    )


def _pixels(folder: Path) -> dict[str, Any]:
    """Read preprocessor_config.json of a model."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {folder}: download it with the model")
    about: dict[str, Any] = json.loads(path.read_text())
    return about


def _image_processor(
    about: Mapping[str, Any], config: Any, towers: Mapping[str, Any], *, source: Path
) -> Any:
    """Make transformers' image processor of a model's preprocessor_config.json.

    Args:
        towers: `vision_config.params` of the 7B model, whose towers have a mean and std each.
    """
    from transformers import DeepseekVLHybridImageProcessorPil, DeepseekVLImageProcessorPil

    low = config.vision_config.image_size
    hybrid = config.model_type == "deepseek_vl_hybrid"
    side = config.high_res_vision_config.image_size if hybrid else low
    if about.get("image_size", side) != side or not {"image_mean", "image_std"} <= about.keys():
        raise ValueError(
            f"preprocessor_config.json in {source} does not fit this model's {side} px tower: "
            f"{_CONVERTED}"
        )

    size = {"height": low, "width": low}
    least = about.get("min_size", LEAST_PX)
    if not hybrid:
        return DeepseekVLImageProcessorPil(
            size=size,
            min_size=least,
            image_mean=about["image_mean"],
            image_std=about["image_std"],
        )
    low_res, high_res = towers["low_res_cfg"], towers["high_res_cfg"]
    processor: Any = DeepseekVLHybridImageProcessorPil(
        size=size,
        high_res_size={"height": side, "width": side},
        min_size=least,
        image_mean=low_res.get("pixel_mean", HALF),
        image_std=low_res.get("pixel_std", HALF),
        high_res_image_mean=high_res.get("pixel_mean", CLIP_MEAN),
        high_res_image_std=high_res.get("pixel_std", CLIP_STD),
    )
    # The towers normalise with means of their own; the padding has the colour of the processor's.
    processor.high_res_background_color = tuple(int(255 * mean) for mean in about["image_mean"])
    return processor


def _tokenizer(folder: Path) -> Any:
    """Read tokenizer.json, and add the BOS that Llama's class puts before a text by default."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    if not (folder / "tokenizer.json").is_file():
        raise FileNotFoundError(f"no tokenizer.json in {folder}: download it with the model")
    tokenizer = read_or_explain(
        folder, "the tokenizer", PreTrainedTokenizerFast.from_pretrained, local_files_only=True
    )
    path = folder / "tokenizer_config.json"
    about = json.loads(path.read_text()) if path.is_file() else {}
    of_llama = str(about.get("tokenizer_class", "")).startswith("LlamaTokenizer")
    if of_llama and about.get("add_bos_token", True):
        bos = str(tokenizer.bos_token)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{bos}:0 $A:0",
            pair=f"{bos}:0 $A:0 {bos}:1 $B:1",
            special_tokens=[(bos, tokenizer.bos_token_id)],
        )
    return tokenizer
