"""The table of LMM families by transformers' model type, and loading an LMM."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flmm.adapters.family import Family, ProcessorReader
from flmm.adapters.frozen import FrozenLMM
from flmm.adapters.loading import four_bit_options, merge_adapter
from flmm.adapters.precision import DTYPES
from flmm.hub import check_device, check_parts_of_config, hub_options, read_or_explain
from flmm.transformers_compat import check_transformers, own_attention

# model_type -> module and class in `families`; imported on use.
_FAMILIES: dict[str, Callable[..., Family] | tuple[str, str]] = {
    "llama4": ("llama4", "Llama4"),
    "llava": ("llava", "llava"),
    "llava_next": ("llava_next", "LlavaNext"),
    "deepseek_vl": ("deepseek_vl", "DeepseekVL"),
    "deepseek_vl_hybrid": ("deepseek_vl", "DeepseekVLHybrid"),
    "aya_vision": ("aya_vision", "AyaVision"),
    "gemma3": ("gemma3", "Gemma3"),
    "gemma4": ("gemma4", "Gemma4"),
    "glm4v": ("glm4v", "Glm4v"),
    "glm4v_moe": ("glm4v", "Glm4v"),
    "glm46v": ("glm4v", "Glm4v"),
    "hpt": ("hpt", "Hpt"),
    "idefics3": ("smolvlm", "SmolVLM"),
    "internvl": ("internvl", "InternVL"),
    "llava_onevision": ("llava_onevision", "LlavaOnevision"),
    "mgm": ("mgm", "MiniGemini"),
    "mgm_gemma": ("mgm", "MiniGemini"),
    "mistral3": ("mistral3", "Mistral3"),
    "molmo2": ("molmo2", "Molmo2"),
    "paligemma": ("paligemma", "PaliGemma"),
    "qwen2_5_vl": ("qwen2_5_vl", "Qwen25VL"),
    "qwen3_5": ("qwen3_vl", "Qwen3VL"),
    "qwen3_5_moe": ("qwen3_vl", "Qwen3VL"),
    "qwen3_vl": ("qwen3_vl", "Qwen3VL"),
    "qwen3_vl_moe": ("qwen3_vl", "Qwen3VL"),
    "smolvlm": ("smolvlm", "SmolVLM"),
}
# model_type of config.json -> module of `authors` that reads such a folder.
_AUTHORS = {"multi_modality": "deepseek", "mgm": "mgm", "mgm_gemma": "mgm", "hpt": "hpt"}


def supported_families() -> list[str]:
    """List the model types that have a family, as in a model's config.json."""
    return sorted(_FAMILIES)


def register_family(model_type: str, family: Callable[..., Family]) -> None:
    """Add a user-defined family: `family(config, image_processor)` makes a `Family`.

    Raises:
        ValueError: there is one for this model type already.
    """
    if model_type in _FAMILIES:
        raise ValueError(
            f"there is a family for {model_type!r} already; register under the type of another "
            "model"
        )
    _FAMILIES[model_type] = family


def family_for(config: Any, image_processor: Any) -> Family:
    """Find the family of a model by its configuration's model type.

    Raises:
        ValueError: there is none; the message lists the known ones.
    """
    return _family_class(getattr(config, "model_type", None))(config, image_processor)


def _family_class(model_type: str | None) -> Callable[..., Family]:
    entry = None if model_type is None else _FAMILIES.get(model_type)
    if entry is None:
        raise ValueError(
            f"no adapter for LMMs of type {model_type!r}; supported are "
            f"{', '.join(supported_families())}. To add one, write a class with the members of "
            "flmm.adapters.Family and pass it to flmm.register_family (README.md, 'Adding an LMM')"
        )
    if isinstance(entry, tuple):
        module, name = entry
        return getattr(import_module(f"flmm.adapters.families.{module}"), name)
    return entry


def build_lmm(model: nn.Module, image_processor: Any, tokenizer: Any = None) -> FrozenLMM:
    """Freeze a transformers image-text model that is built already.

    Args:
        model: such as a LlavaForConditionalGeneration; its parameters stop training.
        image_processor: the transformers image processor of that model, for sizes, mean and std.
        tokenizer: needed for texts only.

    Raises:
        ValueError: no adapter for this type of model, or its attention cannot be captured.
    """
    config = getattr(model, "config", None)
    return FrozenLMM(model, family_for(config, image_processor), tokenizer)


def load_lmm(
    name: str | Path,
    *,
    dtype: str = "bfloat16",
    device: str = "cpu",
    four_bit: bool = False,
    adapter: str | Path | None = None,
) -> FrozenLMM:
    """Load a model folder or a model of the Hugging Face hub.

    Args:
        name: folder, or hub id such as "llava-hf/llava-1.5-7b-hf", in transformers' layout.
            DeepSeek-VL also loads in its authors' layout, HPT and Mini-Gemini only load in it.
            Models of the hub that are in its cache need no network.
        dtype: of the weights, "bfloat16", "float16" or "float32".
        four_bit: load linear layers in 4 bits, a quarter of bfloat16's memory, on a GPU. It needs
            bitsandbytes. Attention, and so masks, change a little.
        adapter: folder or hub id of a LoRA of this LMM, which is added to its weights. It needs
            peft.

    Raises:
        ValueError: an unknown dtype or device, transformers is too old, no family for this LMM,
            weights or other files that are not whole, or a LoRA that does not fit.
        FileNotFoundError: no such folder or hub model, or a part of it is missing.
        ImportError: a package that `four_bit` or `adapter` needs is missing.
    """
    check_transformers()
    if dtype not in DTYPES.values():
        raise ValueError(f"dtype={dtype!r}; legal values are {', '.join(sorted(DTYPES.values()))}")
    check_device(device)
    if four_bit and adapter is not None:
        raise ValueError(
            "an adapter cannot be added to 4-bit weights: load the LMM whole, or save it with its "
            "adapter merged first"
        )
    quantised = four_bit_options(dtype, device) if four_bit else {}
    where = hub_options(name, what="an LMM")
    raw = _read_config(name, where)
    model_type = raw["model_type"]
    if (author := _AUTHORS.get(model_type)) is not None:
        if four_bit or adapter is not None:
            raise ValueError(
                f"{name} is in its authors' layout: 4-bit weights and adapters are for LMMs in "
                "transformers' layout"
            )
        module = import_module(f"flmm.adapters.authors.{author}")
        model, processor, tokenizer = module.read_authors_model(
            name, raw, dtype=getattr(torch, dtype), **where
        )
        family = family_for(model.config, processor)
    else:
        _family_class(model_type)  # before transformers complains about a type it does not know
        check_parts_of_config(raw, name)
        model, family, tokenizer = _read_model(name, dtype, where, quantised)
        if adapter is not None:
            model = merge_adapter(model, adapter)

    # FrozenLMM checks the context, with the image's tokens.
    tokenizer.model_max_length = int(1e30)
    return FrozenLMM(model.to(device), family, tokenizer)


def _read_config(name: str | Path, where: dict[str, bool]) -> dict[str, Any]:
    """Read config.json of an LMM; HPT, whose parts have one each, has none."""
    from transformers import PreTrainedConfig

    from flmm.adapters.authors.hpt import is_hpt

    if (Path(name) / "adapter_config.json").is_file() and not (Path(name) / "config.json").exists():
        raise ValueError(
            f"{name} is an adapter, not an LMM: pass the LMM that it was trained on, and this "
            "folder as the adapter (--adapter)"
        )
    fault = FileNotFoundError(
        f"{name} has no config.json with a model_type: pass the folder of an LMM, or a hub id"
    )
    raw: dict[str, Any] = {}
    try:
        raw, _ = read_or_explain(name, "config.json", PreTrainedConfig.get_config_dict, **where)
    except FileNotFoundError as missing:
        fault = missing
    if raw.get("model_type"):
        return raw
    if is_hpt(name, **where):
        return {"model_type": "hpt"}
    raise fault


def _read_model(
    name: str | Path, dtype: str, where: dict[str, bool], quantised: dict[str, Any]
) -> tuple[nn.Module, Family, Any]:
    """Read a model in transformers' layout, its family and its tokenizer.

    Args:
        quantised: see `four_bit_options`.
    """
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModelForImageTextToText,
        AutoTokenizer,
        ProcessorMixin,
    )

    config = read_or_explain(name, "config.json", AutoConfig.from_pretrained, **where)
    processor = read_or_explain(
        name, "the image processor", AutoImageProcessor.from_pretrained, **where
    )
    family = family_for(config, processor)
    if isinstance(family, ProcessorReader):
        options, _ = read_or_explain(
            name, "processor_config.json", ProcessorMixin.get_processor_dict, **where
        )
        family.read_processor(options)
    tokenizer = read_or_explain(name, "the tokenizer", AutoTokenizer.from_pretrained, **where)
    model, loaded = read_or_explain(
        name,
        "the weights",
        AutoModelForImageTextToText.from_pretrained,
        config=config,
        dtype=getattr(torch, dtype),
        # The attention in config.json does not count: FrozenLMM sets the one that it captures.
        attn_implementation=own_attention(config),
        output_loading_info=True,
        **where,
        **quantised,
    )
    if missing := sorted(loaded["missing_keys"]):
        raise ValueError(
            f"{name} lacks {len(missing)} weights, such as {', '.join(missing[:3])}; they would be "
            "random. Download the model again, or convert it to transformers' layout"
        )
    return model, family, tokenizer
