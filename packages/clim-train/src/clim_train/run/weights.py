"""Weights in a run folder: written whole, with a checksum of the frozen ones."""

import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from clim_data.files import write_whole
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the hexadecimal CRC-32 over names and bytes of CPU tensors."""
    crc = 0
    for name in sorted(tensors):
        data = tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy()
        crc = zlib.crc32(data.data, zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"


def save_weights(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write CPU tensors as safetensors; the file is whole or does not exist."""
    tensors = {k: v.contiguous() for k, v in tensors.items()}
    with write_whole(path) as draft:
        save_file(tensors, draft, metadata=dict(metadata or {}))


def save_start_weights(path: Path, trained: Mapping[str, Tensor], frozen_checksum: str) -> None:
    """Write the weights that training starts from, and the checksum of the frozen ones."""
    save_weights(path, trained, {"frozen": frozen_checksum})


def load_start_weights(path: Path, frozen_checksum: str) -> dict[str, Tensor]:
    """Return what `save_start_weights` wrote.

    Raises ValueError where the file is damaged, or the frozen weights are not those of the run.
    """
    try:
        with safe_open(path, framework="pt") as file:
            expected = (file.metadata() or {}).get("frozen")
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged ({error}): put back a copy, or start the run again"
        ) from error
    if expected != frozen_checksum:
        raise ValueError(
            f"the frozen weights of the model differ from those the run in {path.parent} started "
            "with: give it the same model.pretrained file as then"
        )
    return load_file(path)
