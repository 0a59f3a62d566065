"""Files of a run folder beside metrics and checkpoints: what was started, and with which
versions."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "clim-data", "clim-models", "clim-eval", "clim-train",
    "torch", "torchvision", "open_clip_torch", "timm", "deepspeed", "numpy", "pillow",
)  # fmt: skip


def check_run_folder(folder: str | Path, *, resume: bool, program: str) -> bool:
    """Whether a run was started in the folder. Raises ValueError unless it is to be resumed and
    there, or new."""
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
    return {
        "python": platform.python_version(),
        **found,
        "processes": world_size,
        "device": f"{device.type}: {name}",
    }
