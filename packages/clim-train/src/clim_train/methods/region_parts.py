"""What the methods share: pixels in, which parameters train, how a model is written, and the rows
of all ranks."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import clim_models
import torch
import torch.distributed as dist
from clim_data.processes.ranks import ranks
from torch import Tensor, nn

if TYPE_CHECKING:
    from clim_models import RegionModel


def pixels(model: "RegionModel", images: Tensor) -> Tensor:
    """(B, 3, H, W) as the model expects them, from uint8 values or floats that are normalised
    already."""
    return images if images.is_floating_point() else model.normalize_pixels(images)


def trained_parameters(model: "RegionModel", *, logit_scale: bool) -> dict[str, nn.Parameter]:
    """Names and parameters that `freeze` left trainable; without the logit scale where a loss has
    no use for it."""
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return {name: p for name, p in found.items() if logit_scale or not name.endswith("logit_scale")}


def save_weights(model: "RegionModel", folder: Path, state: Mapping[str, Tensor]) -> None:
    """Writes `folder` for `create_model(name, pretrained=folder)` and plain open_clip."""
    prefix = "clip."
    weights = {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
    clim_models.save_model(model, folder, state_dict=weights)


def rows_per_rank(rows: int, device: torch.device) -> Tensor:
    """Mean number of rows over the ranks: what a rank's sum of losses is divided by (float32 scalar
    on `device`).

    Gradients are averaged over R ranks. With N rows on all of them, (1/R) sum_r [sum_i l_i / (N/R)]
    = sum_i l_i / N: the mean over the rows of the global batch, however unequally they are shared
    out. Never 0.
    """
    # Filled on the device: a copy from the host would wait for it.
    count = torch.full((), rows, dtype=torch.float32, device=device)
    if ranks() > 1:
        dist.all_reduce(count)
    return count.clamp(min=1) / ranks()
