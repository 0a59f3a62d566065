"""Tokenizers of LMMs: prompts to ids, and ids to plain text."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from flmm.adapters.frozen import FrozenLMM


def prompt_ids(lmm: FrozenLMM, prompt: str, *, system: bool = True) -> Tensor:
    """Encode a prompt, after the family's system text unless `system` is False."""
    text = f"{lmm.family.system}{prompt}" if system else prompt
    return torch.tensor(tokenizer_of(lmm).encode(text))


def tokenizer_of(lmm: FrozenLMM) -> Any:
    """Return the tokenizer of an LMM.

    Raises:
        ValueError: the LMM was built without one.
    """
    if lmm.tokenizer is None:
        raise ValueError("this LMM has no tokenizer: pass one to build_lmm, or use load_lmm")
    return lmm.tokenizer


def plain_decoder(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    """Make a function of token ids: their text without special tokens, spaces as they are."""
    return lambda ids: tokenizer.decode(
        ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
