"""Read weights from any known file into a RegionModel, strictly, and report the layout."""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from clim_models.checkpoints.layouts import recognise, to_open_clip, unwrap
from clim_models.checkpoints.tensor_files import check_values, read_tensors
from clim_models.checkpoints.torchscript import is_torchscript, read_torchscript
from clim_models.checkpoints.transformers_layouts import TIPSV2

WEIGHTS_FILE = "model.safetensors"
# Differing keys that an error lists, of each kind.
LISTED = 8
# Bytes that an archive may unpack to beyond twice its size.
ROOM = 64 << 20
# Errors of libraries for files that are cut off or overwritten.
DAMAGED = (RuntimeError, EOFError, OSError, KeyError, zipfile.BadZipFile)


@dataclass(frozen=True)
class LoadReport:
    """The result of `load_checkpoint`.

    Attributes:
        layout: "open_clip", "openai", "eva-clip", "transformers-siglip2" or "transformers-tipsv2".
        tensors: number of tensors.
        source: a path, or "state dict".
    """

    layout: str
    tensors: int
    source: str


def load_checkpoint(
    model: nn.Module, path_or_state_dict: str | Path | Mapping[str, Any]
) -> LoadReport:
    """Load weights into a RegionModel, strictly.

    Args:
        model: a RegionModel (or a bare open_clip model).
        path_or_state_dict: a `.pt`/`.pth`/`.bin` or `.safetensors` file, a run folder of ours, or a
            state dict; in the layout of open_clip, OpenAI (TorchScript archives too), EVA-CLIP,
            transformers' SigLIP 2 NaFlex and TIPSv2, or a CLIPSelf/CLIM release.

    Returns:
        The layout, the source, and the number of tensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a checkpoint, truncated, unsafe, with values that are not finite, or of
            another model: the differing keys are listed.
    """
    clip = getattr(model, "clip", model)
    if isinstance(path_or_state_dict, Mapping):
        source = "state dict"
        raw = path_or_state_dict
    else:
        source = str(path_or_state_dict)
        raw = read_checkpoint(Path(path_or_state_dict))

    tensors = unwrap(raw)
    layout = recognise(set(tensors))
    _check_activation(clip, layout, source)
    renamed = to_open_clip(tensors, text_prefix=hasattr(clip, "text"))

    own = clip.state_dict()
    # Frozen batch norms of the original releases have no counter; evaluation does not read it.
    for key, value in own.items():
        if key.endswith("num_batches_tracked"):
            renamed.setdefault(key, value)
    # Released files of TIPSv2 have no temperature: the model is built with it.
    if layout == TIPSV2:
        renamed.setdefault("logit_scale", own["logit_scale"])

    _check_keys(own, renamed, layout=layout, source=source)
    check_values(own, renamed, source=source)
    clip.load_state_dict(renamed, strict=True)
    return LoadReport(layout, len(renamed), source)


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """Read a weights file or run folder; nothing in it is executed.

    Raises:
        FileNotFoundError, ValueError: as `load_checkpoint`.
    """
    if path.is_dir():
        path = export_folder(path) / WEIGHTS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; check the path, or pass an open_clip tag")
    try:
        if path.suffix == ".safetensors":
            return read_tensors(path)
        # OpenAI's format.
        if is_torchscript(path):
            return read_torchscript(path)
        check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(_unpickling_reason(path)) from error
    except PermissionError:  # the file may be sound
        raise
    except DAMAGED as error:
        # torch raises a KeyError for a first byte that it does not know.
        if isinstance(error, KeyError) and not _begins_as_checkpoint(path):
            raise ValueError(_unpickling_reason(path)) from error
        reason = f"{error}".partition(". ")[0].partition("\n")[0][:160]
        raise ValueError(
            f"{path} is truncated or damaged ({reason}); download or export it again"
        ) from error


def check_archive(path: Path) -> None:
    """Refuse a zip archive that unpacks to far more than its size; torch.save never packs tensors.

    Raises:
        ValueError: see above; or its list of members is damaged.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError) as error:
        raise ValueError(f"{path} is damaged ({error}): take another copy of it") from error
    if unpacked > ROOM + 2 * path.stat().st_size:
        raise ValueError(
            f"{path} unpacks to {unpacked / 1e9:.1f} GB, far more than its size: torch.save did "
            "not write it; use a checkpoint from a source you know"
        )


def export_folder(path: Path) -> Path:
    """Return the path of the export: `model` in the run folder of a training, else the path itself.

    Raises:
        FileNotFoundError: the folder is a run that was stopped before it had an export.
    """
    if (path / WEIGHTS_FILE).exists():
        return path
    inside = path / "model"
    if (inside / WEIGHTS_FILE).exists():
        return inside
    if (path / "checkpoints").is_dir() and (path / "config.json").is_file():
        raise FileNotFoundError(
            f"{path} {_stopped_at(path)} and has no export: clim-train export {path}"
        )
    return path


def _stopped_at(run: Path) -> str:
    """Describe the step at which a run was stopped, by the names of its checkpoints."""
    steps = []
    for folder in (run / "checkpoints").glob("step-*"):
        number = folder.name.removeprefix("step-")
        if number.isdigit():
            steps.append(int(number))
    return f"stopped at step {max(steps):,}" if steps else "stopped before its first checkpoint"


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _begins_as_checkpoint(path: Path) -> bool:
    """Return whether the file begins as a zip archive or a pickle does."""
    return _first_bytes(path).startswith((b"PK", b"\x80"))


def _unpickling_reason(path: Path) -> str:
    """Explain why a file is not read: it is not a checkpoint, or it holds Python objects."""
    if not _begins_as_checkpoint(path):
        start = _first_bytes(path)
        return (
            f"{path} is not a checkpoint (it starts with {start!r}); "
            "pass a .pt, .bin or .safetensors file"
        )
    return (
        f"{path} is no plain state dict: it holds Python objects whose loading could run code; "
        "save it again with torch.save(model.state_dict(), ...) or as .safetensors"
    )


def _check_activation(clip: nn.Module, layout: str, source: str) -> None:
    """Refuse OpenAI's archives for GELU models: they would load and give wrong features."""
    layers = list(clip.get_submodule("visual").modules())
    uses_quick = any(isinstance(layer, QuickGELU) for layer in layers)
    uses_gelu = any(type(layer) is nn.GELU for layer in layers)
    if layout == "openai" and uses_gelu and not uses_quick:
        raise ValueError(
            f"{source} holds OpenAI weights, which need QuickGELU; build the '-quickgelu' model of "
            "that name"
        )


def _check_keys(
    own: Mapping[str, Tensor], new: Mapping[str, Tensor], *, layout: str, source: str
) -> None:
    """Refuse weights whose keys or shapes differ from the model's.

    Raises:
        ValueError: the differing keys, and their likely layout.
    """
    missing = sorted(own.keys() - new.keys())
    unexpected = sorted(new.keys() - own.keys())
    shared = own.keys() & new.keys()
    shapes = [
        f"{k} {tuple(new[k].shape)} for {tuple(own[k].shape)}"
        for k in sorted(shared)
        if new[k].shape != own[k].shape
    ]
    if not (missing or unexpected or shapes):
        return

    # Few shared keys mean foreign names; many wrong shapes mean another size.
    if len(shared) < 0.1 * len(own):
        verdict = "an unknown layout, or no CLIP at all"
    elif len(shapes) > 0.05 * len(own) or missing:
        verdict = "another model"
    else:
        verdict = "a model that differs in places"

    lists = [
        _list_keys("missing", missing),
        _list_keys("unexpected", unexpected),
        _list_keys("mis-shaped", shapes),
    ]
    raise ValueError(
        f"{source} does not fit: recognised layout {layout!r}, it looks like {verdict}.\n"
        + "\n".join(text for text in lists if text)
        + "\nBuild the model with the name and image size these weights were trained with"
    )


def _list_keys(title: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f", ... ({len(keys)} in all)" if len(keys) > LISTED else ""
    return f"  {title}: {', '.join(keys[:LISTED])}{more}"
