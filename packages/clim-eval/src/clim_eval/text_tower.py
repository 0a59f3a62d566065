"""The text tower behind a file of class embeddings: rows of another model of the same width would
be meaningless."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from clim_data.processes import Ranks
from clim_models import RegionModel
from clim_models.text import text_weights

MATRICES = 8
VALUES = 8  # of each


def text_tower_note(model: RegionModel) -> dict[str, Any]:
    """Return {"model": name, "weights": some weights of its text tower, "quick_gelu": whether its
    activations are approximate}, plain values to be stored with embeddings.

    These are numbers and not a hash, because the same tower may be loaded in another precision.
    """
    matrices = [
        value
        for _, value in sorted(text_weights(model).items())
        if value.is_floating_point() and value.ndim > 1
    ]
    picked = [matrices[i * len(matrices) // MATRICES] for i in range(MATRICES)] if matrices else []
    values: list[float] = []
    for matrix in picked:
        flat = matrix.detach().flatten()
        places = torch.arange(VALUES, device=flat.device) * flat.numel() // VALUES
        values += flat[places].float().tolist()
    return {"model": model.name, "weights": values, "quick_gelu": _has_quick_gelu(model)}


def _has_quick_gelu(model: RegionModel) -> bool:
    """Tell whether the text tower has the activations of OpenAI's models.

    Without them the same weights give other embeddings: names of open_clip come with and without.
    """
    for name, module in model.clip.named_modules():
        if not name.startswith("visual") and "quickgelu" in type(module).__name__.lower():
            return True
    return False


def check_text_tower(
    path: Path, note: Mapping[str, Any] | None, width: int, model: RegionModel
) -> None:
    """Check that a file with rows of `width` channels can come from the text tower of `model`.

    A file that does not name its text tower is used as it is, with a line on stderr.

    Raises:
        ValueError: another text tower made it.
    """
    fix = "make them with `clim-eval embed` and this model"
    name = model.name or "this model"
    if width != model.embed_dim:
        raise ValueError(
            f"the embeddings of {path} have {width} channels, {name} has {model.embed_dim}: {fix}"
        )
    if note is None:
        if Ranks.of_launcher().is_first:
            print(
                f"{path} does not say which model made it: it is used for {name} (files of "
                "`clim-eval embed` name their model)",
                file=sys.stderr,
            )
        return
    try:
        stored, of = torch.tensor(note["weights"]), note["model"] or "a model without a name"
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"what {path} says of its text tower is damaged ({error!r}): {fix}"
        ) from error
    found = text_tower_note(model)
    own = torch.tensor(found["weights"])
    # Files of earlier releases do not note the activations.
    quick = note.get("quick_gelu", found["quick_gelu"])
    if quick != found["quick_gelu"]:
        theirs, ours = ("QuickGELU", "GELU") if quick else ("GELU", "QuickGELU")
        raise ValueError(
            f"the embeddings of {path} are of {of} with {theirs} activations, {name} has {ours}: "
            f"{fix}"
        )
    # Within the rounding of bf16 and fp16; training moves weights by far more.
    if stored.shape != own.shape or not torch.allclose(stored, own, rtol=2**-7, atol=1e-6):
        other = "another model" if of != name else "a model of that name with other weights"
        raise ValueError(
            f"the embeddings of {path} are of {of}, {other} than the one in use ({name}): {fix}"
        )
