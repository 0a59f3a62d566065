"""Everything in open_clip that we use without a promise of its documentation.

Tried on open_clip_torch 3.3; of version 4, which is not released, the source was read.
`tests/clim_models/test_open_clip_compat.py` reports what broke.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias
from urllib.error import URLError

import open_clip.factory
import open_clip.hf_model
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.hf_configs import arch_dict
from open_clip.hf_model import HFTextEncoder
from open_clip.model import (
    CLIP,
    CustomTextCLIP,
    _build_vision_tower,
    set_model_preprocess_cfg,
)
from open_clip.pretrained import get_pretrained_cfg
from torch import nn

from clim_models.hub_compat import is_not_in_cache

_LOGGERS = ("open_clip.factory", "open_clip.pretrained", "open_clip.hf_model")
_NOT_FETCHED = ("Failed to download weights for tag", "Failed to download file")

# Checkers take both as `Any`: open_clip has no types.
OpenClipModel: TypeAlias = CLIP | CustomTextCLIP


@dataclass(frozen=True)
class ImageStatistics:
    """Size and normalisation that open_clip's preprocessing would use; RGB in [0, 1].

    Attributes:
        size: (H, W) of evaluation.
        mean, std: of each channel.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, model: OpenClipModel) -> "ImageStatistics":
        """Read the statistics of a model; CLIP's own where it has none."""
        size = getattr(model.visual, "image_size", 224)
        found = getattr(model.visual, "preprocess_cfg", None) or {}
        return cls(
            size=(size, size) if isinstance(size, int) else tuple(size),
            mean=tuple(found.get("mean") or OPENAI_DATASET_MEAN),
            std=tuple(found.get("std") or OPENAI_DATASET_STD),
        )


def check_open_clip(model: nn.Module) -> None:
    """Reject a model without an image tower, or one that cannot encode texts.

    Raises:
        ValueError: see above.
    """
    if not hasattr(model, "visual") or not hasattr(model, "encode_text"):
        raise ValueError(
            f"{type(model).__name__} is not an open_clip model; pass CLIP or CustomTextCLIP"
        )


def build_image_tower(config: dict) -> nn.Module:
    """Build the image tower of an open_clip configuration without weights, on the meta device.

    The text tower is not built, so no part of it has to be fetched.
    """
    with torch.device("meta"):
        tower: nn.Module = _build_vision_tower(
            config["embed_dim"], dict(config["vision_cfg"]), config.get("quick_gelu", False)
        )
    return tower


def build_transformers_text(kind: str, sizes: dict[str, int], embed_dim: int) -> nn.Module:
    """Build a text tower of transformers with random weights, as open_clip wraps it.

    Args:
        kind: transformers' `model_type` of a text model whose `pooler_output` has `embed_dim`
            channels.
        sizes: options of its configuration.

    Raises:
        ImportError: there is no transformers, or one that does not know the kind.
    """
    if open_clip.hf_model.transformers is None:
        raise ImportError("transformers is not installed")
    try:
        config = open_clip.hf_model.AutoConfig.for_model(kind, **sizes)
    except ValueError as error:
        raise ImportError(f"this transformers has no {kind}") from error

    # open_clip asks its table how wide the tower is; kinds that it does not list are added.
    names = {"width": "hidden_size", "layer_attr": "layers", "token_embeddings_attr": "embeddings"}
    arch_dict.setdefault(kind, {"config_names": names, "pooler": "cls_pooler"})
    return HFTextEncoder("", embed_dim, config=config, pooler_type="cls_pooler")


def has_image_tower(config: dict) -> bool:
    """Return whether a configuration of open_clip describes an image tower.

    Version 4 also lists models of audio (CLAP, GenLAP) and captioners without one (GenLIP).
    """
    return "vision_cfg" in config and "embed_dim" in config


def set_statistics(model: OpenClipModel, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Set the normalisation that open_clip's preprocessing uses for a model."""
    set_model_preprocess_cfg(model, {**model.visual.preprocess_cfg, "mean": mean, "std": std})


def register_config(name: str, config: dict) -> None:
    """Make `open_clip.create_model(name)` and `open_clip.get_tokenizer(name)` work."""
    # Through the module: open_clip binds a new dictionary whenever it scans for configurations.
    open_clip.factory._MODEL_CONFIGS[name] = config


@contextmanager
def no_weights_yet() -> Iterator[None]:
    """Within it, open_clip does not warn that a model it builds has random weights.

    We load them afterwards. Nor does it print the text of its errors. Other messages pass.
    """

    def is_other(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if text.startswith(_NOT_FETCHED):
            return False
        return not text.endswith(("Model initialized randomly.", "initialized partially."))

    # Version 3 logs to the root logger, version 4 to one of each module.
    loggers = [logging.getLogger(name) for name in (None, *_LOGGERS)]
    for logger in loggers:
        logger.addFilter(is_other)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_other)


def is_not_fetched(error: BaseException) -> bool:
    """Tell whether an error of `open_clip.create_model` says that weights could not be fetched."""
    if isinstance(error, URLError | ConnectionError) or is_not_in_cache(error):
        return True
    return str(error).startswith(_NOT_FETCHED)


def how_to_fetch(name: str, tag: str) -> str:
    """Return the command that fetches the weights of a tag, or their address."""
    known = get_pretrained_cfg(name, tag)
    repository = known.get("hf_hub", "").strip("/")
    return f"hf download {repository}" if repository else known.get("url", "")
