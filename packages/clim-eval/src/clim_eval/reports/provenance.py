"""The provenance of a number: package versions, the data's fingerprint, the model's hash."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path

import torch
from torch import nn

OUR_PACKAGES = ("clim-data", "clim-models", "clim-eval", "clim-train", "flmm")
LIBRARIES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "timm",
    "transformers",
    "deepspeed",
    "numpy",
    "pillow",
)


def package_versions() -> dict[str, str]:
    """Return the versions of Python, of the packages that can change a result (those installed),
    and the accelerator's name."""
    versions = {"python": platform.python_version()}
    for name in (*OUR_PACKAGES, *LIBRARIES):
        version = _version_of(name)
        if version is not None:
            versions[name] = version

    versions["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return versions


def _version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        if name not in OUR_PACKAGES:
            return None

    # Our packages also run from their source folders, which have no metadata.
    try:
        return import_module(f"{name.replace('-', '_')}.version").__version__
    except ModuleNotFoundError:
        return None


def data_fingerprint(files: Sequence[str | Path], counts: Mapping[str, int]) -> dict:
    """Return ``{"fingerprint": hex, "files": {name: sha256}, "counts": {...}}``: equal when
    annotations and counts are equal.

    File names without folders enter it, so the same data in another place has the same fingerprint.
    Raises FileNotFoundError for a missing file.
    """
    hashes = {}
    for path in map(Path, files):
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is not a file: pass the annotation file that was evaluated"
            )
        hashes[path.name] = hash_file(path)
    counts = {name: int(count) for name, count in sorted(counts.items())}
    text = repr((sorted(hashes.items()), sorted(counts.items())))
    return {
        "fingerprint": hashlib.sha256(text.encode()).hexdigest()[:16],
        "files": hashes,
        "counts": counts,
    }


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_fingerprint(model: nn.Module) -> str:
    """First 16 hex digits of the SHA-256 of all weights and buffers, names, shapes and dtypes
    included."""
    # Imported here: it brings open_clip, which reports do without.
    from clim_models.checkpoints import hash_weights

    return hash_weights(model.state_dict())[:16]
