"""The model of a command: by its name and weights, or by the run folder that knows both."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from clim_data.processes import Ranks, local_device

if TYPE_CHECKING:
    from clim_models import RegionModel


def load_region_model(
    name: str, pretrained: str | Path | None, *, precision: str, device: str
) -> "RegionModel":
    """Build a model with its weights; without `pretrained` say on stderr that they are random."""
    # Imported here: it brings open_clip, which takes seconds that `--help` need not wait for.
    from clim_models import create_model

    # Every rank and every run draws the same random weights.
    torch.manual_seed(0)
    if pretrained is None and Ranks.of_group().is_first:
        print(
            "no --pretrained: the weights of the model are random, which only shows that it runs",
            file=sys.stderr,
        )
    return create_model(name, pretrained=pretrained, precision=precision, device=device)


def pick_device(device: str | None) -> str:
    """Return the device that was asked for, else what `local_device` returns."""
    return device or str(local_device())


def model_of_run(pretrained: str | Path | None, *, trusted: bool = False) -> str:
    """Return the model name in the config.json of an export, or of the one inside a run folder.

    Raises:
        ValueError: no file says it, or, unless `trusted`, the name may bring code.
    """
    from clim_models import name_of_export

    name = name_of_export(pretrained, trusted=trusted) if pretrained else None
    if not name:
        raise ValueError(
            "which model? pass --model NAME, or --pretrained RUN with the folder of a finished run "
            "(`clim-train export RUN` finishes a stopped one)"
        )
    return name
