"""The tokenizer of a model."""

from collections.abc import Callable

import open_clip
from torch import Tensor

from clim_models.hub_compat import cache_alone_without_hub
from clim_models.names import model_config
from clim_models.open_clip_compat import OpenClipModel


def tokenizer_for(name: str | None, clip: OpenClipModel) -> Callable[[list[str]], Tensor]:
    """Return the tokenizer of a model: texts -> (N, T) token ids.

    A model wrapped without a name gets CLIP's byte pairs with its own context length.
    """
    if name is not None:
        # clim-tiny's configuration must be registered first.
        text = model_config(name).get("text_cfg", {})

        # Options of the configuration reach transformers' loader: it must never run a folder's
        # Python, even if they ask for it. Other tokenizers do not know the option.
        plain = {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}
        with cache_alone_without_hub():
            return open_clip.get_tokenizer(name, **plain)

    length = getattr(clip, "context_length", None) or getattr(clip.text, "context_length", 77)
    return open_clip.SimpleTokenizer(context_length=length)
