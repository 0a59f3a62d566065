"""Files of a run folder that say what was started, and with which versions."""

import platform
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
    """Return what the numbers of a run depend on: versions, number of processes, kind of device."""
    known = package_versions()
    found: dict[str, Any] = {name: known.get(name) for name in ("python", *PACKAGES)}

    is_gpu = device.type == "cuda"
    kind = torch.cuda.get_device_name(device) if is_gpu else platform.machine()
    return {**found, "processes": world_size, "device": f"{device.type}: {kind}"}
