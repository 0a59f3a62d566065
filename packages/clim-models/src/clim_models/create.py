"""Build a RegionModel from an open_clip name and weights from anywhere."""

import json
from contextlib import nullcontext
from pathlib import Path

import open_clip
import torch
from open_clip.model import set_model_preprocess_cfg
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

from clim_models.checkpoints.load import export_folder, load_checkpoint
from clim_models.names import SHIPPED, TINY, model_config
from clim_models.open_clip_compat import no_weights_yet
from clim_models.region_model import RegionModel

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def create_model(
    name: str,
    pretrained: str | Path | None = None,
    image_size: int | tuple[int, int] | None = None,
    precision: str = "fp32",
    device: str | torch.device = "cpu",
    **options: str | bool,
) -> RegionModel:
    """Build a RegionModel.

    Args:
        name: any open_clip model name, or "clim-tiny".
        pretrained: None (random weights), a tag of open_clip ("emoji" for "clim-tiny"), a local
            `.pt` or `.safetensors`, or a run folder of ours.
        image_size: side, or (H, W), that evaluation should use; weights are not touched, since
            position embeddings follow the image anyway. None keeps the size of the pretraining.
        precision: "fp32", "bf16" or "fp16": the dtype of all weights and features.
        device: where the model goes.
        **options: `antialias`, `partial_patches`, `box_patches` of RegionModel.

    Raises:
        ValueError: unknown name (close ones are listed), tag, precision or option, or weights that
            do not fit.
        FileNotFoundError: `pretrained` looks like a path and is not there.
        ImportError: the model needs an extra; the message has the `pip install` line.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}; legal values are {', '.join(PRECISIONS)}")
    unknown = options.keys() - {"antialias", "partial_patches", "box_patches"}
    if unknown:
        raise ValueError(
            f"unknown option {sorted(unknown)}; legal ones are antialias, partial_patches, "
            "box_patches"
        )
    config = model_config(name)
    tag = _tag(name, pretrained)
    if name == TINY:
        from clim_models.tiny import build_clim_tiny

        clip = build_clim_tiny(pretrained == SHIPPED)
    else:
        with no_weights_yet() if pretrained is not None else nullcontext():
            clip = open_clip.create_model(name, pretrained=tag, pretrained_hf=False)
        _set_preprocessing(clip, name, tag)
    model = RegionModel(clip, **options)
    model.name, model.config = name, config
    if pretrained is not None and tag is None:
        load_checkpoint(model, _weights(name, pretrained, config))
    if image_size is not None:
        model.image_size = (
            (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        )
    return model.to(device=device, dtype=PRECISIONS[precision]).eval()


def _tag(name: str, pretrained: str | Path | None) -> str | None:
    """The tag meant by `pretrained`, or None if it is a path (or nothing)."""
    if pretrained is None:
        return None
    tags = [SHIPPED] if name == TINY else list_pretrained_tags_by_model(name)
    if str(pretrained) in tags:
        wanted = name != TINY and get_pretrained_cfg(name, str(pretrained)).get("quick_gelu", False)
        if wanted and not model_config(name).get("quick_gelu", False):
            raise ValueError(
                f"weights {pretrained!r} need QuickGELU; use the model name '{name}-quickgelu'"
            )
        return str(pretrained)
    if Path(pretrained).exists():
        return None
    known = ", ".join(tags) or "none for this model"
    if Path(pretrained).suffix or "/" in str(pretrained):
        raise FileNotFoundError(
            f"no weights at {pretrained}; check the path, or pass a tag: {known}"
        )
    raise ValueError(
        f"unknown weights {pretrained!r} for {name!r}; pass a path or one of the tags: {known}"
    )


def _weights(name: str, pretrained: str | Path, config: dict) -> Path:
    """Path of local weights; an export must be of the same model (its name, or else all of its
    configuration)."""
    path = export_folder(Path(pretrained))
    described = path / "open_clip_config.json"
    if described.exists():
        named = path / "config.json"
        own = json.loads(named.read_text()).get("name") if named.exists() else None
        saved = json.loads(described.read_text())["model_cfg"]
        differing = sorted(k for k in saved.keys() | config.keys() if saved.get(k) != config.get(k))
        if own != name and differing:
            raise ValueError(
                f"{path} holds {own or 'another model'}, not {name!r} (they differ in "
                f"{differing}); pass that name"
            )
    return path


def _set_preprocessing(clip: torch.nn.Module, name: str, tag: str | None) -> None:
    """Mean and std of the pretraining: of the tag, else of the model's other tags, where they all
    agree."""
    if tag is not None:
        return
    keys = ("mean", "std")
    known = [get_pretrained_cfg(name, t) for t in list_pretrained_tags_by_model(name)]
    found = {tuple(tuple(c[k]) for k in keys) for c in known if all(c.get(k) for k in keys)}
    if len(found) == 1:
        mean, std = found.pop()
        set_model_preprocess_cfg(clip, {**clip.visual.preprocess_cfg, "mean": mean, "std": std})
