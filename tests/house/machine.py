"""The kind of machine that a record was made with: CPU and versions of libraries.

Figures are compared exactly on the same kind of machine, and within a tolerance on others.
"""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RECORDS = Path(__file__).parent / "records"
LIBRARIES = (
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "open_clip_torch",
    "timm",
    "transformers",
    "deepspeed",
)


def kind() -> dict[str, str]:
    """Return what the last bits of a figure depend on."""
    found = {name: version(name) for name in LIBRARIES}
    return {
        **found,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "processor": processor(),
    }


def processor() -> str:
    """Return vendor, family and model of the CPU, by which libraries choose their kernels."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()

    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    return " ".join(facts.get(name, "") for name in ("vendor_id", "cpu family", "model"))


def save(name: str, content: dict[str, Any]) -> None:
    """Write a record together with the kind of this machine."""
    RECORDS.mkdir(exist_ok=True)
    text = json.dumps({"kind": kind(), **content}, indent=1, sort_keys=True)
    (RECORDS / f"{name}.json").write_text(text + "\n")


def load(name: str) -> tuple[dict[str, Any], bool]:
    """Read a record; also say whether it was made on this kind of machine."""
    content = json.loads((RECORDS / f"{name}.json").read_text())
    return content, content.pop("kind") == kind()
