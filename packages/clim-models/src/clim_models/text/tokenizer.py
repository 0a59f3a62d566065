"""The tokenizer of a model."""

from collections.abc import Callable

import open_clip
import torch

from clim_models.names import model_config


def tokenizer_for(name: str | None, clip: torch.nn.Module) -> Callable[[list[str]], torch.Tensor]:
    """The tokenizer of a model; a model wrapped without a name gets CLIP's BPE with its own context
    length."""
    if name is not None:
        model_config(name)
        return open_clip.get_tokenizer(name)
    length = getattr(clip, "context_length", None) or getattr(clip.text, "context_length", 77)
    return open_clip.SimpleTokenizer(context_length=length)
