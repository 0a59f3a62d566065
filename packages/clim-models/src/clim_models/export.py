"""Write a model so that `create_model` and plain open_clip both load it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from clim_models.checkpoints.load import WEIGHTS_FILE
from clim_models.region_model import RegionModel
from clim_models.version import __version__


def save_model(
    model: RegionModel, folder: str | Path, *, state_dict: Mapping[str, Tensor] | None = None
) -> Path:
    """Export to `folder`: model.safetensors, config.json, open_clip_config.json and a Hugging Face
    tokenizer's files.

    Args:
        model: built by `create_model` (its configuration is known) or with `model.config` set.
        state_dict: weights to write instead of the model's own, in open_clip's names, for example
            interpolated ones.

    Returns:
        The folder. Load it with `create_model(name, pretrained=folder)` or
        `open_clip.create_model("local-dir:" + folder)`. Where the configuration names a Hugging
        Face text tower by a path (clim-tiny), open_clip wants it at that path; `create_model` finds
        it where it is now.

    Raises:
        ValueError: the model has no configuration.
    """
    if model.config is None or model.name is None:
        raise ValueError(
            "the model has no name or configuration; set model.name and model.config (open_clip's "
            "model_cfg)"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = model.clip.state_dict() if state_dict is None else state_dict
    weights = {k: v.detach().cpu().contiguous().clone() for k, v in weights.items()}
    partial = folder / f".{WEIGHTS_FILE}.part"
    save_file(weights, partial, metadata={"format": "pt"})
    os.replace(partial, folder / WEIGHTS_FILE)
    preprocess = {
        "mean": list(model.image_mean),
        "std": list(model.image_std),
        "size": list(model.image_size),
    }
    _write_json(
        folder / "open_clip_config.json", {"model_cfg": model.config, "preprocess_cfg": preprocess}
    )
    if "hf_tokenizer_name" in model.config.get("text_cfg", {}):
        # open_clip looks for its files beside the weights; a tokenizer of the user's own may have
        # none.
        save_tokenizer = getattr(model.tokenizer, "save_pretrained", None)
        if save_tokenizer is not None:
            save_tokenizer(str(folder))
    _write_json(
        folder / "config.json",
        {"name": model.name, "clim_models": __version__, "tower": model.tower_kind},
    )
    return folder


def _write_json(path: Path, content: dict) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(partial, path)
