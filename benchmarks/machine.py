"""The machine and the libraries of a measurement."""

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

VERSIONS = (
    "torch",
    "torchvision",
    "pillow",
    "open_clip_torch",
    "timm",
    "deepspeed",
    "transformers",
)


def machine(device: str, threads: int) -> dict:
    """Return what it was measured on, in general words: no host name, no paths."""
    on_gpu = torch.device(device).type == "cuda"
    return {
        "processor": processor(),
        "cores": cores(),
        "threads": threads,
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "python": platform.python_version(),
        "packages": package_versions(),
        "load_at_start": round(os.getloadavg()[0], 1),
    }


def cores() -> int:
    """Return the number of cores, at least 1."""
    return os.cpu_count() or 1


def package_versions() -> dict[str, str]:
    """Return the version of each library that decides a speed, where it is installed."""
    found = {}
    for package in VERSIONS:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def processor() -> str:
    """Return the name of the processor's model."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
