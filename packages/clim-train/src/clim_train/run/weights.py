"""Weights in a run folder: written whole, with a checksum of the frozen ones."""

from collections.abc import Mapping
from pathlib import Path

from clim_models.checkpoints import read_metadata, read_tensors, save_tensors
from torch import Tensor


def save_start_weights(path: Path, trained: Mapping[str, Tensor], frozen_checksum: str) -> None:
    """Write the weights that training starts from, and the checksum of the frozen ones."""
    save_tensors(trained, path, {"frozen": frozen_checksum})


def load_start_weights(path: Path, frozen_checksum: str) -> dict[str, Tensor]:
    """Return what `save_start_weights` wrote.

    Raises ValueError where the file is damaged, or the frozen weights are not those of the run.
    """
    try:
        expected = read_metadata(path).get("frozen")
        tensors = read_tensors(path)
    except ValueError as error:
        raise ValueError(f"{error}: put back a copy, or start the run again") from error
    if expected != frozen_checksum:
        raise ValueError(
            f"the frozen weights of the model differ from those the run in {path.parent} started "
            "with: give it the same model.pretrained file as then"
        )
    return tensors
