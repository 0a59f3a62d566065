"""Files of trained heads: ours (safetensors), and the released F-LMM checkpoints (`.pth`)."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clim_models.checkpoint import read_checkpoint
from clim_models.layouts import to_unet_head, unwrap
from safetensors.torch import save_file
from torch import Tensor, nn

from flmm.sam_weights import POSITIONS, check_names, to_transformers

# Released names begin with the first; ours with the second.
RELEASED_SAM, OWN_SAM, HEAD = "sam.model.", "sam.", "mask_head."
OWN_POSITIONS = f"{OWN_SAM}{POSITIONS}"


def heads_from_released(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of a released F-LMM checkpoint -> those of `GroundedLMM`; its own stay as they are."""
    head = {k[len(HEAD) :]: v for k, v in tensors.items() if k.startswith(HEAD)}
    sam = {k[len(RELEASED_SAM) :]: v for k, v in tensors.items() if k.startswith(RELEASED_SAM)}
    rest = {k: v for k, v in tensors.items() if not k.startswith((HEAD, RELEASED_SAM))}
    return {
        **{f"{HEAD}{k}": v for k, v in to_unet_head(head).items()},
        **{f"{OWN_SAM}{k}": v for k, v in to_transformers(sam).items()},
        **rest,
    }


def open_heads(source: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a file of heads, or of a state dict, under the names of `GroundedLMM`; nothing in it is executed.

    Raises:
        FileNotFoundError, ValueError: as `clim_models.checkpoint.read_checkpoint`.
    """
    return heads_from_released(unwrap(source if isinstance(source, Mapping) else read_checkpoint(Path(source))))


def mask_head_width(tensors: Mapping[str, Tensor]) -> int:
    """Channels of the first stage of the mask head in a file of heads.

    Raises:
        ValueError: there is no mask head in it.
    """
    last = tensors.get(f"{HEAD}predict.weight")
    if last is None:
        raise ValueError(
            f"there is no mask head among {sorted(tensors)[:4]} ...; pass a file of GroundedLMM.save_heads or a "
            "released F-LMM checkpoint"
        )
    return last.shape[1]


def read_heads(model: nn.Module, new: Mapping[str, Tensor], *, name: str) -> None:
    """Load tensors of `open_heads` into a `GroundedLMM`, strictly; `name` is what errors call them.

    Raises:
        ValueError: missing, unexpected or mis-shaped entries, which are listed.
    """
    own = dict(model.state_dict())
    model.own_positions = OWN_POSITIONS not in new
    trained = {key: own[key] for key in model.saved_names()}
    check_names(trained, new, source=name)
    model.load_state_dict(new, strict=False)


def write_heads(model: nn.Module, path: str | Path, state_dict: Mapping[str, Tensor] | None = None) -> Path:
    """Write what trains of a `GroundedLMM`; see `GroundedLMM.save_heads`.

    Raises:
        ValueError: the state dict lacks something that trains.
    """
    path = Path(path)
    values = model.state_dict() if state_dict is None else state_dict
    names = model.saved_names()
    if lost := [name for name in names if name not in values]:
        raise ValueError(f"the state dict lacks {len(lost)} trained entries, such as {lost[0]}; pass the whole one")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    save_file({n: values[n].detach().cpu().contiguous().clone() for n in names}, partial, metadata={"format": "pt"})
    os.replace(partial, path)
    return path
