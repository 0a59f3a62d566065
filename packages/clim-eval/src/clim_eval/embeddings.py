"""Class embeddings on disk: made once per text tower, templates and names, read by every evaluation."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from clim_models.prompts import NAME_TEMPLATE, PHOTO_TEMPLATE, VILD_TEMPLATES, embed_classes
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

TEMPLATES = {"vild": VILD_TEMPLATES, "photo": PHOTO_TEMPLATE, "name": NAME_TEMPLATE}


def cache_folder() -> Path:
    """Where class embeddings are cached by default: $XDG_CACHE_HOME/clim/classes, or ~/.cache/clim/classes."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clim" / "classes"


def embed_with_bar(model: nn.Module, names: Sequence[str], templates: str, *, cache: Path | None, show: bool) -> Tensor:
    """`clim_models.prompts.embed_classes` with templates by name and a live bar; (K, C) unit rows."""
    with tqdm(desc="classes", unit="prompt", disable=not show, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return embed_classes(model, names, templates=TEMPLATES[templates], cache=cache, progress=advance)


def save_class_embeddings(path: str | os.PathLike, embeddings: Tensor, names: Sequence[str], templates: str) -> None:
    """Write (K, C) rows with their names to a .safetensors file, atomically."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} should end in .safetensors: name the file NAME.safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    about = {"names": json.dumps(list(names)), "templates": templates}
    save_file({"embeddings": embeddings.float().cpu().contiguous()}, unfinished, metadata=about)
    os.replace(unfinished, path)


def load_class_embeddings(path: str | os.PathLike, names: Sequence[str]) -> Tensor:
    """(K, C) rows for ``names`` from a file of `save_class_embeddings`, or from a .npy with one row per class.

    Rows of our own files are picked by name; a .npy has no names, so its rows must be in the data's order (sorted
    category ids). Raises FileNotFoundError, or ValueError when classes are missing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: make it with `clim-eval embed --out {path}`")
    if path.suffix == ".npy":
        rows = torch.from_numpy(np.load(path, allow_pickle=False)).float()
        if rows.ndim != 2 or len(rows) != len(names):
            raise ValueError(
                f"{path} has shape {tuple(rows.shape)} for {len(names)} classes: pass one row per class of the data, "
                "in the order of their ids"
            )
        return rows
    with safe_open(path, framework="pt") as file:
        if "embeddings" not in file.keys() or "names" not in (file.metadata() or {}):  # noqa: SIM118
            raise ValueError(f"{path} holds no class embeddings: make the file with `clim-eval embed`")
        rows, known = file.get_tensor("embeddings"), json.loads(file.metadata()["names"])
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(
            f"{path} has no embedding of {missing[:5]} ({len(missing)} of {len(names)} classes): "
            "make it again with `clim-eval embed` from the annotation file you evaluate"
        )
    return rows[[known.index(name) for name in names]]
