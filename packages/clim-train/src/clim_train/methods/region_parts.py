"""Parts that the methods share: options, pixels, trained parameters, weights, and rows of all
ranks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import clim_models
import torch
import torch.distributed as dist
from clim_data.processes import Ranks
from torch import Tensor, nn

from clim_train.methods.method import MethodOptions
from clim_train.options.checks import check_choice
from clim_train.options.sections import BoxMode

if TYPE_CHECKING:
    from clim_models import RegionModel


@dataclass(frozen=True)
class RegionOptions(MethodOptions):
    """Options of the methods that train features of boxes."""

    box_mode: BoxMode = "align"
    """`align` pools the dense map (the papers' choice; CLIM's v2); `attention` lets a class token
    attend inside each box (CLIM's v1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "task", "box_mode")


def regions_only(options: RegionOptions, data: Any = None) -> str:
    """Return the path of the image tower that gets gradients where only boxes train."""
    return "dense" if options.box_mode == "align" else "attention"


def check_box_mode(box_mode: str) -> None:
    """Raise ValueError unless `box_mode` is a mode of `RegionModel.encode_boxes`."""
    if box_mode not in ("align", "attention"):
        raise ValueError(f"box_mode={box_mode!r} is not possible: use 'align' or 'attention'")


def pixels(model: "RegionModel", images: Tensor) -> Tensor:
    """Return (B, 3, H, W) as the model expects them.

    Args:
        images: uint8 values, or floats that are normalised already.
    """
    return images if images.is_floating_point() else model.normalize_pixels(images)


def trained_parameters(model: "RegionModel", *, logit_scale: bool) -> dict[str, nn.Parameter]:
    """Return names and parameters that `freeze` left trainable.

    Args:
        logit_scale: False leaves it out, for a loss that does not use it.
    """
    found = {}
    for name, parameter in model.named_parameters():
        is_scale = name.endswith("logit_scale")
        if parameter.requires_grad and (logit_scale or not is_scale):
            found[name] = parameter
    return found


def save_weights(model: "RegionModel", folder: Path, state: Mapping[str, Tensor]) -> None:
    """Write `folder` for `create_model(name, pretrained=folder)` and plain open_clip.

    Args:
        state: entries of `model.state_dict()`.
    """
    prefix = "clip."
    weights = {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
    clim_models.save_model(model, folder, state_dict=weights)


def rows_per_rank(rows: int | Tensor, device: torch.device) -> Tensor:
    """Return the mean number of rows over the ranks, never 0, as a float32 scalar on `device`.

    A rank divides its sum of losses by it. Gradients are averaged over R ranks; with N rows on all
    of them, (1/R) sum_r [sum_i l_i / (N/R)] = sum_i l_i / N is the mean over the rows of the global
    batch, even if the ranks have different numbers of rows.
    """
    if isinstance(rows, Tensor):
        count = rows.detach().to(device, torch.float32, copy=True)
    else:
        # Filled on the device: a copy from the host would wait for it.
        count = torch.full((), rows, dtype=torch.float32, device=device)
    if Ranks.of_group().world_size > 1:
        dist.all_reduce(count)
    return count.clamp(min=1) / Ranks.of_group().world_size


def blank_images(count: int, side: int) -> Tensor:
    """Return (count, 3, side, side) black uint8 pixels, for example batches."""
    return torch.zeros(count, 3, side, side, dtype=torch.uint8)


def example_boxes(count: int) -> Tensor:
    """Return (count, 4) equal XYXY boxes in [0, 1], for example batches."""
    return torch.tensor([[0.1, 0.1, 0.9, 0.9]]).repeat(count, 1)
