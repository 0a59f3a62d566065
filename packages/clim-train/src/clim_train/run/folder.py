"""Files of a run folder that record the configuration and the versions."""

import os
import platform
import shutil
from pathlib import Path
from typing import Any

import torch
from clim_eval import package_versions

PACKAGES = (
    "clim-data",
    "clim-models",
    "clim-eval",
    "clim-train",
    "torch",
    "torchvision",
    "open_clip_torch",
    "timm",
    "deepspeed",
    "numpy",
    "pillow",
)


def check_run_folder(folder: str | Path, *, resume: bool, program: str) -> bool:
    """Return whether a run was started in the folder.

    Raises ValueError for a new run in a used folder, and where there is no run to resume.
    """
    started = (Path(folder) / "config.json").is_file()
    if started and not resume:
        raise ValueError(
            f"{folder} already holds a run: `{program} resume {folder}` continues it; "
            "choose another --run.folder for a new one"
        )
    if resume and not started:
        raise ValueError(f"{folder} holds no run to resume: start one with `{program} RECIPE`")
    return started


OWN_FILES = (
    ".lock",
    "config.json",
    "versions.json",
    "metrics.jsonl",
    "skipped.json",
    "loggers.json",
    "loss.png",
    "before_after.png",
    "start.safetensors",
    "trained.safetensors",
)
OWN_FOLDERS = ("checkpoints", "model", "tensorboard", "wandb")


def refuse_links(folder: str | Path) -> None:
    """Raise ValueError where a run would write through a link to outside its folder.

    The folder itself may be a link: then the run lives where it leads.
    """
    folder = Path(folder)
    root = os.path.realpath(folder)
    own = [folder / name for name in (*OWN_FILES, *OWN_FOLDERS)]
    for name in OWN_FOLDERS:
        inner = folder / name
        if inner.is_dir() and not inner.is_symlink():
            own += sorted(inner.iterdir())

    for path in own:
        if path.is_symlink():
            target = os.path.realpath(path)
            if os.path.commonpath([root, target]) != root:
                raise ValueError(
                    f"{path} is a link to {target}, outside the run folder, where a run never "
                    "writes: replace the link with what it leads to"
                )


def remove(path: Path) -> None:
    """Remove a folder, a file or a link, without following the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def versions(world_size: int, device: torch.device) -> dict[str, Any]:
    """Return the facts that the numbers of a run depend on: versions, number of processes, kind of
    device."""
    known = package_versions()
    found: dict[str, Any] = {name: known.get(name) for name in ("python", *PACKAGES)}

    is_gpu = device.type == "cuda"
    kind = torch.cuda.get_device_name(device) if is_gpu else platform.machine()
    return {**found, "processes": world_size, "device": f"{device.type}: {kind}"}
