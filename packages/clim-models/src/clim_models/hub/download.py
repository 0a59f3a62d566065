"""A trained model from the hub, or from a folder in the hub's layout."""

from pathlib import Path

import torch
from open_clip.constants import HF_SAFE_WEIGHTS_NAME

from clim_models.checkpoints.about import eval_px_of
from clim_models.checkpoints.load import WEIGHTS_FILE, export_folder
from clim_models.create import create_model
from clim_models.foreign import name_of_export
from clim_models.hub_compat import cache_alone_without_hub, is_not_in_cache
from clim_models.region_model import RegionModel

# Files that are fetched from the hub. Pickles of the same weights would only be twice the download.
FETCHED = ("*.json", "*.txt", "*.md", "*.safetensors")


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
        FileNotFoundError: neither a folder here, nor on the hub or in its cache, or a folder
            without weights.
        ValueError: a folder without a model, or whose weights are damaged or do not fit.
    """
    folder = export_folder(fetch_folder(source, revision=revision))
    name = name_of_export(folder, trusted=trusted)
    if name is None:
        raise ValueError(
            f"{source} has no config.json of clim-models: open_clip models of others load with "
            f'create_model("hf-hub:{source}")'
        )
    eval_px = eval_px_of(folder)
    weights = _weights_in(folder, source)
    model = create_model(name, pretrained=weights, precision=precision, device=device)
    model.eval_px = eval_px
    return model


def _weights_in(folder: Path, source: str | Path) -> Path:
    """Return the file of weights in a folder of the hub, or of an export."""
    for name in (HF_SAFE_WEIGHTS_NAME, WEIGHTS_FILE):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f"{source} has neither {HF_SAFE_WEIGHTS_NAME} nor {WEIGHTS_FILE}: fetch or export it again "
        "(pickled weights are never read from the hub)"
    )


def fetch_folder(source: str | Path, *, revision: str | None = None) -> Path:
    """Return a local folder, or the local copy of a repository of the hub.

    Of a repository only texts and safetensors are fetched.

    Raises:
        FileNotFoundError: there is none, and none can be fetched.
    """
    if Path(source).is_dir():
        return Path(source)
    text = str(source)
    if Path(source).is_file():
        raise FileNotFoundError(f"{source} is a file: pass its folder, or OWNER/NAME")
    if text.count("/") != 1 or text.startswith(("/", ".", "~")):
        raise FileNotFoundError(f"no folder {source}: check the path, or pass OWNER/NAME")

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        with cache_alone_without_hub():
            return Path(snapshot_download(text, revision=revision, allow_patterns=list(FETCHED)))
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"the hub has no {text}, or it is private: check the name, or `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"{text} has no revision {revision!r}: pass a branch, tag or commit of it"
        ) from error
    except Exception as error:
        if not is_not_in_cache(error):
            raise
        raise FileNotFoundError(
            f"no connection to the hub, and {text} is not in its cache: fetch it where there is "
            f"one (hf download {text} --local-dir FOLDER), and pass the folder"
        ) from error
