"""Write a model so that `create_model` and plain open_clip both load it."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from clim_models.checkpoints.about import ABOUT_FILE, OPEN_CLIP_FILE
from clim_models.checkpoints.atomic import write_json
from clim_models.checkpoints.load import WEIGHTS_FILE
from clim_models.checkpoints.tensor_files import save_tensors
from clim_models.region_model import RegionModel
from clim_models.version import __version__


def save_model(
    model: RegionModel, folder: str | Path, *, state_dict: Mapping[str, Tensor] | None = None
) -> Path:
    """Export a model to a folder.

    Writes model.safetensors, config.json, open_clip_config.json and, for Hugging Face text towers,
    the files of the tokenizer. config.json says at which size to read regions (`model.eval_px`).

    Args:
        model: built by `create_model` (its configuration is known) or with `model.config` set.
        state_dict: weights to write instead of the model's own, in open_clip's names, for example
            interpolated ones.

    Returns:
        The folder. Load it with `create_model(name, pretrained=folder)` or
        `open_clip.create_model("local-dir:" + folder)`. If the configuration names a Hugging Face
        text tower by a path (clim-tiny), open_clip needs it at that path; `create_model` finds it
        where it is now.

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
    own_copy = {key: w.detach().cpu().contiguous().clone() for key, w in weights.items()}
    save_tensors(own_copy, folder / WEIGHTS_FILE, {"format": "pt"})

    preprocess = {
        "mean": list(model.image_mean),
        "std": list(model.image_std),
        "size": list(model.image_size),
    }
    described = {"model_cfg": model.config, "preprocess_cfg": preprocess}
    write_json(folder / OPEN_CLIP_FILE, described)
    _save_tokenizer(model, folder)

    # Last: a folder with this file is complete.
    about: dict[str, str | int] = {
        "name": model.name,
        "clim_models": __version__,
        "tower": model.tower_kind,
    }
    if model.eval_px is not None:
        about["eval_px"] = model.eval_px
    write_json(folder / ABOUT_FILE, about)
    return folder


def _save_tokenizer(model: RegionModel, folder: Path) -> None:
    """Save a Hugging Face tokenizer; open_clip looks for its files next to the weights."""
    if model.config is None or "hf_tokenizer_name" not in model.config.get("text_cfg", {}):
        return
    # A user-defined tokenizer may have no files.
    save = getattr(model.tokenizer, "save_pretrained", None)
    if save is not None:
        save(str(folder))
