"""Weights of an LMM in 4 bits, and adapters (LoRA) of its fine-tunings: for use, not for training.

Both need packages that flmm does not bring: bitsandbytes and accelerate, and peft. They are
imported here only. Tried with bitsandbytes 0.50, accelerate 1.15 and peft 0.21.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flmm.hub import hub_options, read_or_explain


def four_bit_options(dtype: str, device: str) -> dict[str, Any]:
    """Return the options of transformers' `from_pretrained` for linear layers in 4 bits (NF4).

    Args:
        dtype: in which layers compute.
        device: a GPU.

    Raises:
        ValueError: the device is no GPU.
        ImportError: bitsandbytes or accelerate is missing; the message has the `pip install` line.
    """
    if torch.device(device).type != "cuda":
        raise ValueError(
            f"4-bit weights need a GPU, and device={device!r} is none: pass another device, or "
            "load the LMM whole"
        )
    need_packages("4-bit weights", "bitsandbytes", "accelerate")
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, dtype)
    )
    return {"quantization_config": settings, "device_map": {"": device}}


def merge_adapter(model: nn.Module, adapter: str | Path) -> nn.Module:
    """Add the low-rank weights of a fine-tuning to those of its LMM.

    Afterwards the model is one of transformers again, at the same cost as before.

    Args:
        model: an LMM of transformers.
        adapter: folder or hub id with adapter_config.json, as peft saves it.

    Raises:
        FileNotFoundError: no such folder or hub id.
        ValueError: it is no adapter, one of another model, or of a kind that cannot be merged.
        ImportError: peft is missing; the message has the `pip install` line.
    """
    need_packages("an adapter", "peft", "accelerate")
    from peft import PeftConfig, PeftModel

    where = hub_options(adapter, what="an adapter")
    read_or_explain(adapter, "adapter_config.json", PeftConfig.from_pretrained, **where)
    names = set(dict(model.named_parameters()))
    try:
        joined: Any = PeftModel.from_pretrained(
            model, str(adapter), is_trainable=False, torch_device="cpu", **where
        )
        whole: nn.Module = joined.merge_and_unload()
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as fault:
        reason = " ".join(str(fault).split())[:200]
        raise ValueError(
            f"the adapter {adapter} does not fit this LMM ({reason}): pass the LMM that it was "
            "trained on, and a LoRA"
        ) from fault
    if names != set(dict(whole.named_parameters())):
        raise ValueError(
            f"the adapter {adapter} changes more than weights: pass a LoRA that can be merged"
        )
    return whole


def need_packages(what: str, *names: str) -> None:
    """Raise ImportError with the `pip install` line if a package is missing."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ImportError(f"{what} needs {' and '.join(missing)}: pip install {' '.join(missing)}")
