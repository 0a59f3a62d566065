"""A trained model from the hub, or from a folder in the hub's layout."""

from pathlib import Path

import torch
from open_clip.constants import HF_SAFE_WEIGHTS_NAME

from clim_models.checkpoints.load import WEIGHTS_FILE, export_folder
from clim_models.create import create_model
from clim_models.foreign import name_of_export
from clim_models.hub.card import read_json
from clim_models.hub_compat import cache_alone_without_hub, is_not_in_cache
from clim_models.region_model import RegionModel


def from_pretrained(
    source: str | Path,
    *,
    revision: str | None = None,
    precision: str = "fp32",
    device: str | torch.device = "cpu",
    trusted: bool = False,
) -> RegionModel:
    """Build a model that `push_to_hub` uploaded, or that a run exported.

    Args:
        source: OWNER/NAME on the hub, a local copy of it, or a run folder.
        revision: branch, tag or commit of the hub.
        precision, device: as in `create_model`.
        trusted: accept a model name in the folder that may bring code.

    Raises:
        FileNotFoundError: neither a folder here, nor on the hub or in its cache.
        ValueError: a folder without a model, or whose weights do not fit.
    """
    folder = export_folder(fetch_folder(source, revision=revision))
    name = name_of_export(folder, trusted=trusted)
    if name is None:
        raise ValueError(
            f"{source} has no config.json of clim-models: open_clip models of others load with "
            f'create_model("hf-hub:{source}")'
        )
    weights = folder / HF_SAFE_WEIGHTS_NAME
    if not weights.is_file():
        weights = folder / WEIGHTS_FILE
    model = create_model(name, pretrained=weights, precision=precision, device=device)
    model.eval_px = read_json(folder / "config.json").get("eval_px")
    return model


def fetch_folder(source: str | Path, *, revision: str | None = None) -> Path:
    """Return a local folder, or the local copy of a repository of the hub.

    Raises:
        FileNotFoundError: there is none, and none can be fetched.
    """
    if Path(source).is_dir():
        return Path(source)
    text = str(source)
    if text.count("/") != 1 or text.startswith(("/", ".", "~")):
        raise FileNotFoundError(f"no folder {source}: check the path, or pass OWNER/NAME")

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        with cache_alone_without_hub():
            return Path(snapshot_download(text, revision=revision))
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"the hub has no {text}, or it is private: check the name, or `hf auth login`"
        ) from error
    except Exception as error:
        if not is_not_in_cache(error):
            raise
        raise FileNotFoundError(
            f"no connection to the hub, and {text} is not in its cache: fetch it where there is "
            f"one (hf download {text} --local-dir FOLDER), and pass the folder"
        ) from error
