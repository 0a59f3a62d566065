"""Embeddings of a loader's classes, for the methods that compare regions with names."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from clim_data.processes import Ranks
from clim_eval import cache_folder, embed_with_bar, load_class_embeddings
from torch import Tensor

if TYPE_CHECKING:
    from clim_models import RegionModel


def class_embeddings(
    model: "RegionModel",
    names: Sequence[str],
    *,
    file: str | None,
    templates: str,
    device: torch.device,
) -> Tensor:
    """Return (K, C) embeddings of the classes.

    They come from `file`, or from the model's text tower, which runs on `device` and whose results
    are cached. Raises ValueError where the file lacks classes, or is of another model.

    Args:
        file: class embeddings of `clim-eval embed`; None embeds the names.
        templates: "vild", "photo" or "name", the prompts for the names.
    """
    if file is not None:
        return load_class_embeddings(file, names, model=model)

    # On the device that will train: thousands of names take hours on a CPU.
    return embed_with_bar(
        model.to(device),
        names,
        templates,
        cache=cache_folder(),
        show=Ranks.of_group().is_first,
    )
