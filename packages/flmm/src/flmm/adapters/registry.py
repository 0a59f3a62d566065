"""From a transformers model type to the family that knows its image tokens."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flmm.adapters.frozen import Family, FrozenLMM
from flmm.attention import check_transformers

DTYPES = ("bfloat16", "float16", "float32")
# model_type -> module and class in this folder; imported on use.
_FAMILIES: dict[str, Callable[..., Family] | tuple[str, str]] = {
    "llava": ("llava", "Llava"),
    "llava_next": ("llava_next", "LlavaNext"),
    "deepseek_vl": ("deepseek_vl", "DeepseekVL"),
    "deepseek_vl_hybrid": ("deepseek_vl", "DeepseekVLHybrid"),
    "internvl": ("internvl", "InternVL"),
    "llava_onevision": ("llava_onevision", "LlavaOnevision"),
    "qwen2_5_vl": ("qwen2_5_vl", "Qwen25VL"),
}
# Layouts that transformers does not read, and where the same weights are in one that it does.
_ELSEWHERE = {
    "multi_modality": " (the authors' layout of DeepSeek-VL; use deepseek-community/deepseek-vl-1.3b-chat or -7b-chat)"
}


def supported_families() -> list[str]:
    """Model types that have a family, as in a model's config.json."""
    return sorted(_FAMILIES)


def register_family(model_type: str, family: Callable[..., Family]) -> None:
    """Adds a family of one's own: `family(config, image_processor)` makes a `Family`.

    Raises:
        ValueError: there is one for this model type already.
    """
    if model_type in _FAMILIES:
        raise ValueError(f"there is a family for {model_type!r} already; register under the type of another model")
    _FAMILIES[model_type] = family


def family_for(config: Any, image_processor: Any) -> Family:
    """The family of a model by its configuration's model type.

    Raises:
        ValueError: none is known; the message lists those that are.
    """
    return _family_class(config.model_type)(config, image_processor)


def _family_class(model_type: str) -> Callable[..., Family]:
    entry = _FAMILIES.get(model_type)
    if entry is None:
        hint = _ELSEWHERE.get(model_type, "")
        raise ValueError(
            f"no adapter for LMMs of type {model_type!r}{hint}; supported are {', '.join(supported_families())}. To "
            "add one, write a class with the members of flmm.adapters.frozen.Family and pass it to "
            "flmm.register_family (README.md, 'Adding an LMM')"
        )
    return getattr(import_module(f"flmm.adapters.{entry[0]}"), entry[1]) if isinstance(entry, tuple) else entry


def build_lmm(model: nn.Module, image_processor: Any, tokenizer: Any = None) -> FrozenLMM:
    """Freeze a transformers image-text model that is built already.

    Args:
        model: e.g. a LlavaForConditionalGeneration; its parameters stop training.
        image_processor: the transformers image processor of that model, for sizes, mean and std.
        tokenizer: needed for texts only.

    Raises:
        ValueError: no adapter for this type of model, or its attention cannot be captured.
    """
    return FrozenLMM(model, family_for(model.config, image_processor), tokenizer)


def load_lmm(name: str | Path, *, dtype: str = "bfloat16", device: str = "cpu") -> FrozenLMM:
    """Load a model folder or a model of the Hugging Face hub.

    Args:
        name: folder, or hub id such as "llava-hf/llava-1.5-7b-hf".
        dtype: of the weights, "bfloat16", "float16" or "float32".

    Raises:
        ValueError: an unknown dtype, transformers is too old, no adapter for this LMM, or weights that are not there.
        FileNotFoundError: no such folder or hub model.
    """
    check_transformers()
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}; legal values are {', '.join(DTYPES)}")
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModelForImageTextToText,
        AutoTokenizer,
        PreTrainedConfig,
    )

    try:
        if not (model_type := PreTrainedConfig.get_config_dict(name)[0].get("model_type")):
            raise FileNotFoundError("there is no config.json with a model_type")
        _family_class(model_type)  # before transformers complains about types that it does not know either
        config = AutoConfig.from_pretrained(name)
        processor = AutoImageProcessor.from_pretrained(name)
        family = family_for(config, processor)
        tokenizer = AutoTokenizer.from_pretrained(name)
        model, loaded = AutoModelForImageTextToText.from_pretrained(
            name, dtype=getattr(torch, dtype), output_loading_info=True
        )
    except OSError as error:
        raise FileNotFoundError(
            f"no LMM at {name}: {str(error).splitlines()[0]}; pass a folder with config.json, weights, tokenizer and "
            "preprocessor_config.json, or a hub id that can be downloaded"
        ) from error
    if missing := sorted(loaded["missing_keys"]):
        raise ValueError(
            f"{name} lacks {len(missing)} weights, such as {', '.join(missing[:3])}; they would be random. Download "
            "the model again, or convert it to transformers' layout"
        )
    return FrozenLMM(model.to(device), family, tokenizer)
