"""Class embeddings on disk: made once per text tower, templates and names, read by every
evaluation."""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clim_data.files import write_text, write_whole
from clim_models import RegionModel
from clim_models.checkpoints import read_metadata, read_tensors, save_tensors
from clim_models.text import NAME_TEMPLATE, PHOTO_TEMPLATE, VILD_TEMPLATES, embed_classes
from torch import Tensor
from tqdm import tqdm

from clim_eval.text_tower import check_text_tower, text_tower_note

MANY_PROMPTS = 5000
"""With this many prompts, a message tells the user how to have fewer."""

TEMPLATES = {"vild": VILD_TEMPLATES, "photo": PHOTO_TEMPLATE, "name": NAME_TEMPLATE}


def cache_folder() -> Path:
    """Return where class embeddings are cached by default: $XDG_CACHE_HOME/clim/classes, or
    ~/.cache/clim/classes."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clim" / "classes"


def embed_with_bar(
    model: RegionModel, names: Sequence[str], templates: str, *, cache: Path | None, show: bool
) -> Tensor:
    """Embed classes with templates by name and a live bar: (K, C) unit rows."""
    with tqdm(desc="classes", unit="prompt", disable=not show, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            if show and bar.total is None and total >= MANY_PROMPTS:
                bar.write(prompt_note(len(names), templates, total), file=sys.stderr)
            bar.total = total
            bar.update(done - bar.n)

        return embed_classes(
            model, names, templates=TEMPLATES[templates], cache=cache, progress=advance
        )


def prompt_note(classes: int, templates: str, prompts: int) -> str:
    """Describe the number of prompts, with the option that makes fewer."""
    note = f"{prompts:,} prompts: {classes:,} classes x {len(TEMPLATES[templates])} templates"
    if len(TEMPLATES[templates]) > 1:
        note += f"; --templates photo makes {classes:,} of them"
    return f"{note}. They are cached for the next time"


def save_class_embeddings(
    path: str | os.PathLike,
    embeddings: Tensor,
    names: Sequence[str],
    templates: str,
    *,
    model: RegionModel | None = None,
) -> None:
    """Write (K, C) rows with their names, each file whole or not at all.

    NAME.safetensors holds the names. NAME.npy is a plain array; its names are in NAME.npy.json,
    with a hash of the array, so that a file of other classes is noticed. `model` made the rows: the
    file names its text tower, so that readers notice when they have another one.

    Raises:
        ValueError: the file name ends otherwise.
    """
    path = embeddings_path(path)
    rows = embeddings.float().cpu().contiguous()
    about: dict[str, Any] = {"names": list(names), "templates": templates}
    if model is not None:
        about["text_tower"] = text_tower_note(model)
    if path.suffix == ".safetensors":
        metadata = {key: json.dumps(value) for key, value in about.items()}
        save_tensors({"embeddings": rows}, path, {**metadata, "templates": templates})
        return
    with write_whole(path) as draft:
        with open(draft, "wb") as out:
            np.save(out, rows.numpy())
        about["sha256"] = hashlib.sha256(draft.read_bytes()).hexdigest()
        write_text(names_file(path), json.dumps(about, ensure_ascii=False) + "\n")


def embeddings_path(path: str | os.PathLike) -> Path:
    """Check where class embeddings will be written, before hours are spent on them; make the
    folder.

    Raises ValueError for another ending than .safetensors and .npy, OSError for a folder that
    cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".npy"):
        raise ValueError(
            f"{path} should end in .safetensors or .npy: name the file NAME.safetensors"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
        return path


def names_file(path: Path) -> Path:
    """Return the file that holds the class names of a .npy."""
    return path.with_name(path.name + ".json")


def read_class_embeddings(
    path: str | os.PathLike, *, model: RegionModel | None = None
) -> tuple[Tensor, list[str] | None]:
    """Read (K, C) rows and the names of their classes; a .npy that others made has none (None).

    A file that does not note its text tower is used as it is, with a line on stderr.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no class embeddings, other ones than its names, or embeddings by
            another text tower than the one of `model`.
    """
    rows, about = _read(path)
    _check_rows(rows, about.get("names"), path)
    if model is not None:
        check_text_tower(Path(path), about.get("text_tower"), rows.shape[1], model)
    return rows, about.get("names")


def _read(path: str | os.PathLike) -> tuple[Tensor, dict[str, Any]]:
    """Read (K, C) rows and what the file notes about them: nothing, or "names" and maybe
    "text_tower"."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: make it with `clim-eval embed --out {path}`"
        )
    remake = "make the file with `clim-eval embed`"
    if path.suffix == ".npy":
        return _read_npy(path, remake)
    try:
        about = read_metadata(path)
        tensors = read_tensors(path)
        notes: dict[str, Any] = {
            key: json.loads(about[key]) for key in ("names", "text_tower") if key in about
        }
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): {remake}") from error
    if "embeddings" not in tensors or not isinstance(notes.get("names"), list):
        raise ValueError(f"{path} holds no class embeddings: {remake}")
    return tensors["embeddings"].float(), notes


def _check_rows(rows: Tensor, names: Sequence[str] | None, path: str | os.PathLike) -> None:
    """Refuse rows that are no vectors of classes.

    Raises:
        ValueError: a row is not finite or all zeros, or there is not one for each name.
    """
    remake = "make the file with `clim-eval embed`"
    if rows.ndim != 2 or (names is not None and len(names) != len(rows)):
        of = "" if names is None else f" for {len(names)} names"
        raise ValueError(f"{path} has shape {tuple(rows.shape)}{of}, not (K, C): {remake}")
    lengths = rows.norm(dim=1)
    wrong = (~(lengths.isfinite() & (lengths > 0))).nonzero()[:, 0].tolist()
    if wrong:
        raise ValueError(
            f"{path} has {len(wrong)} of {len(rows)} rows that are all zeros or not finite, such "
            f"as row {wrong[0]}: {remake}"
        )


def _read_npy(path: Path, remake: str) -> tuple[Tensor, dict[str, Any]]:
    try:
        array = np.load(path, allow_pickle=False)
        if np.iscomplexobj(array):
            raise ValueError("they are complex")
        rows = torch.from_numpy(array).float()
    except (ValueError, EOFError, TypeError) as error:
        raise ValueError(f"{path} is no array of numbers ({error}): {remake}") from error
    if not names_file(path).is_file():
        return rows, {}
    about = _read_names_file(names_file(path), remake)
    if about["sha256"] != hashlib.sha256(path.read_bytes()).hexdigest():
        raise ValueError(
            f"{path} is not the array that {names_file(path).name} names: {remake} again"
        )
    return rows, about


def _read_names_file(path: Path, remake: str) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(about["sha256"], str) and isinstance(about["names"], list):
            return about
        reason = "names or checksum are of another kind"
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise ValueError(f"{path} is damaged ({reason}): {remake} again")


def load_class_embeddings(
    path: str | os.PathLike, names: Sequence[str], *, model: RegionModel | None = None
) -> Tensor:
    """Read (K, C) rows for ``names`` from a file of `save_class_embeddings`, or from another .npy
    with one row per class.

    Rows of our own files are picked by name; another .npy has no names, so its rows must be in the
    data's order (sorted category ids).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: classes are missing, or another text tower than the one of `model` made the
            rows (see `read_class_embeddings`).
    """
    rows, known = read_class_embeddings(path, model=model)
    if known is None:
        if len(rows) != len(names):
            raise ValueError(
                f"{path} has shape {tuple(rows.shape)} for {len(names)} classes: pass one row per "
                "class of the data, "
                "in the order of their ids"
            )
        return rows
    place = {name: row for row, name in enumerate(known)}
    missing = [name for name in names if name not in place]
    if missing:
        raise ValueError(
            f"{path} has no embedding of {missing[:5]} ({len(missing)} of {len(names)} classes): "
            "make it again with `clim-eval embed` from the names or annotation file of this data"
        )
    return rows[[place[name] for name in names]]
