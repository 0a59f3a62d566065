"""Files of a run folder beside metrics and checkpoints: what was started, with which versions, from which weights."""

import json
import os
import platform
import zlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

PACKAGES = (
    "clim-data", "clim-models", "clim-eval", "clim-train",
    "torch", "torchvision", "open_clip_torch", "timm", "deepspeed", "numpy", "pillow",
)  # fmt: skip


def check_run_folder(folder: str | Path, *, resume: bool, program: str) -> bool:
    """Whether a run was started in the folder. Raises ValueError unless it is to be resumed and there, or new."""
    started = (Path(folder) / "config.json").exists()
    if started and not resume:
        raise ValueError(
            f"{folder} already holds a run: `{program} resume {folder}` continues it; "
            "choose another --run.folder for a new one"
        )
    if resume and not started:
        raise ValueError(f"{folder} holds no run to resume: start one with `{program} RECIPE`")
    return started


def versions(world_size: int, device: torch.device) -> dict[str, Any]:
    """Versions of what the numbers of a run depend on, number of processes and kind of device."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"python": platform.python_version(), **found, "processes": world_size, "device": f"{device.type}: {name}"}


def flush(path: Path) -> None:
    """A file or folder to the disk, so that a power cut, too, finds what was renamed complete."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(draft: Path, path: Path) -> None:
    """Moves a finished draft over `path`; whenever the machine stops, one of the two is there, whole."""
    flush(draft)
    os.replace(draft, path)
    flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a small file in one move, so that it is never read half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text)
    replace_file(draft, path)


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Hexadecimal CRC-32 over names and bytes of CPU tensors."""
    crc = 0
    for name in sorted(tensors):
        data = tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy()
        crc = zlib.crc32(data, zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"


def save_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes CPU tensors as safetensors in one move; the file is whole or not there."""
    draft = path.with_name(path.name + ".tmp")
    save_file({k: v.contiguous() for k, v in tensors.items()}, draft, metadata=dict(metadata or {}))
    replace_file(draft, path)


def save_start_weights(path: Path, trained: Mapping[str, Tensor], frozen_checksum: str) -> None:
    """Weights that training starts from, and the checksum of those that stay as they are."""
    save_weights(path, trained, {"frozen": frozen_checksum})


def load_start_weights(path: Path, frozen_checksum: str) -> dict[str, Tensor]:
    """What `save_start_weights` wrote. Raises ValueError if the frozen weights are not those of the run."""
    with safe_open(path, framework="pt") as file:
        expected = (file.metadata() or {}).get("frozen")
    if expected != frozen_checksum:
        raise ValueError(
            f"the frozen weights of the model differ from those the run in {path.parent} started with: "
            "give it the same model.pretrained file as then"
        )
    return load_file(path)
