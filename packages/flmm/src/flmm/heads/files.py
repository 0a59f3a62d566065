"""Files of trained heads: ours (safetensors), and the released F-LMM checkpoints (`.pth`)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from clim_models import UNetHead
from clim_models.checkpoints import (
    check_values,
    read_checkpoint,
    save_tensors,
    to_unet_head,
    unwrap,
)
from torch import Tensor, nn

from flmm.heads.facts import KEY, check_facts
from flmm.heads.presence import PresenceHead
from flmm.refiners.sam.weights import POSITIONS, check_names, to_transformers

# Released names begin with the first; ours with the second.
RELEASED_SAM, OWN_SAM, HEAD = "sam.model.", "sam.", "mask_head."
OWN_POSITIONS = f"{OWN_SAM}{POSITIONS}"
# Entries that heads for coarse masks only do not have.
REFINER_PARTS = (OWN_SAM, "text_proj.", "text_layer_weights")
PRESENCE = "presence."


class SavedHeads(Protocol):
    """The interface of `TrainableHeads` for reading and writing a file of heads."""

    mask_head: UNetHead
    text_layer_weights: nn.Parameter
    own_positions: bool
    reads_words: bool
    knows: dict[str, Any] | None

    def facts(self) -> dict[str, Any]: ...

    def trained_names(self) -> list[str]: ...

    def saved_names(self) -> list[str]: ...

    def presence_names(self) -> list[str]: ...

    def use_presence(self, head: PresenceHead | None) -> None: ...

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Any: ...


def heads_from_released(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a released F-LMM checkpoint to the names of `GroundedLMM`. Tensors that
    have such names already stay as they are."""
    head = {k[len(HEAD) :]: v for k, v in tensors.items() if k.startswith(HEAD)}
    sam = {k[len(RELEASED_SAM) :]: v for k, v in tensors.items() if k.startswith(RELEASED_SAM)}
    rest = {k: v for k, v in tensors.items() if not k.startswith((HEAD, RELEASED_SAM))}
    return {
        **{f"{HEAD}{k}": v for k, v in to_unet_head(head).items()},
        **{f"{OWN_SAM}{k}": v for k, v in to_transformers(sam).items()},
        **rest,
    }


def open_heads(source: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    """Read the tensors of a file of heads, or of a state dict, under the names of `GroundedLMM`;
    nothing in it is executed.

    Raises:
        FileNotFoundError, ValueError: as `clim_models.checkpoints.read_checkpoint`.
    """
    if isinstance(source, Mapping):
        return heads_from_released(unwrap(source))
    if not Path(source).is_file():
        raise FileNotFoundError(
            f"there are no heads {source}: pass the heads.safetensors of a training, or a released "
            "F-LMM .pth"
        )
    return heads_from_released(unwrap(read_checkpoint(Path(source))))


def mask_head_sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return {"in_channels", "base", "stages"} of the mask head in a file of heads.

    Raises:
        ValueError: there is no mask head in it.
    """
    first, last = tensors.get(f"{HEAD}encoder.0.0.0.weight"), tensors.get(f"{HEAD}predict.weight")
    if first is None or last is None or {first.dim(), last.dim()} != {4}:
        raise ValueError(
            f"there is no mask head among {sorted(tensors)[:4]} ...; pass a file of "
            "GroundedLMM.save_heads or a "
            "released F-LMM checkpoint"
        )
    stages = {key.split(".")[2] for key in tensors if key.startswith(f"{HEAD}encoder.")}
    return {"in_channels": first.shape[1], "base": last.shape[1], "stages": len(stages)}


def mask_head_options(
    tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, name: str
) -> dict[str, Any]:
    """Return the options that the mask head of a file is built with: its facts, or else its sizes.

    Raises:
        ValueError: there is no mask head in it, or its facts are not those of its weights.
    """
    try:
        sizes = mask_head_sizes(tensors)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    found = {key: value for key, value in sizes.items() if key != "in_channels"}
    options = dict(facts.get("mask_head", {}))
    wrong = [key for key in found if options.get(key, found[key]) != found[key]]
    if wrong:
        raise ValueError(
            f"{name} says that its mask head has {wrong[0]}={options[wrong[0]]}, and its weights "
            f"have {found[wrong[0]]}: take another copy of it"
        )
    return {**found, **options}


def read_heads(
    model: SavedHeads,
    new: Mapping[str, Tensor],
    *,
    name: str,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Load tensors of `open_heads` into a `GroundedLMM`, strictly.

    Args:
        name: for errors. facts: of their file (`heads.facts.read_facts`).

    Raises:
        ValueError: values that are not finite; missing, unexpected or mis-shaped entries, which are
            listed; or heads of another
            LMM or SAM. A model without a refiner reads the mask head of any of them.
    """
    maps, layers = model.mask_head.in_channels, len(model.text_layer_weights)
    try:
        found = mask_head_sizes(new)["in_channels"]
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if found != maps:
        raise ValueError(
            f"{name} was trained for another LMM: its mask head takes {found} maps of a phrase, "
            "and this LMM, of "
            f"{layers} layers, has {maps}. Use the LMM it was trained with"
        )
    facts = facts or {}
    model.knows = facts.get("knows")
    check_facts(model.facts(), {k: v for k, v in facts.items() if k != "presence"}, name=name)

    # It was fitted on masks of the refiner that the file was made with.
    sizes = facts.get("presence")
    if sizes is not None:
        _check_presence(sizes, new, name)
    is_fitting = sizes is not None and model.reads_words == ("text_proj.weight" in new)
    model.use_presence(PresenceHead(**sizes) if sizes is not None and is_fitting else None)
    if not is_fitting:
        new = {key: value for key, value in new.items() if not key.startswith(PRESENCE)}

    if not model.reads_words:
        new = {key: value for key, value in new.items() if not key.startswith(REFINER_PARTS)}
    elif not any(key.startswith(OWN_SAM) for key in new):
        raise ValueError(
            f"{name} was trained without a refiner, for coarse masks only: use it without one "
            '(--refiner none, load_grounded(..., sam="none"))'
        )
    own = dict(model.state_dict())
    brought = OWN_POSITIONS in new
    names = [*model.trained_names(), *model.presence_names()]
    trained = {key: own[key] for key in [*names, *([OWN_POSITIONS] if brought else [])]}
    check_names(trained, new, source=name, what="LMM and SAM")
    check_values(own, new, source=name)
    model.own_positions = not brought
    # Not strict, because the frozen weights are not in the file: `check_names` above has compared
    # the names and shapes of everything that is.
    model.load_state_dict(new, strict=False)


def _check_presence(sizes: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> None:
    """Refuse facts of a presence head that its weights do not have, before one is built."""
    first = tensors.get(f"{PRESENCE}layers.0.weight")
    found = None if first is None else tuple(first.shape)
    if found != (sizes.get("hidden"), sizes.get("inputs")):
        raise ValueError(
            f"{name} says of its presence head {dict(sizes)}, and the first layer of it has the "
            f"shape {found}: take another copy of it"
        )


def write_heads(
    model: SavedHeads, path: str | Path, state_dict: Mapping[str, Tensor] | None = None
) -> Path:
    """Write the trained weights of a `GroundedLMM`; see `GroundedLMM.save_heads`.

    Raises:
        ValueError: the state dict lacks a trained weight.
    """
    path = Path(path)
    values = model.state_dict() if state_dict is None else state_dict
    names = model.saved_names()
    if lost := [name for name in names if name not in values]:
        raise ValueError(
            f"the state dict lacks {len(lost)} trained entries, such as {lost[0]}; pass the whole "
            "one"
        )
    metadata = {"format": "pt", KEY: json.dumps(model.facts())}
    tensors = {n: values[n].detach().cpu().contiguous().clone() for n in names}
    save_tensors(tensors, path, metadata)
    return path
