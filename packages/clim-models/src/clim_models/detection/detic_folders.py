"""A detector of Detic + CLIM from its folder: options, classes, weights, and the text tower."""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from clim_models.create import create_model
from clim_models.detection.c4 import C4Detector, C4Options
from clim_models.detection.cascade import CascadeDetector
from clim_models.detection.cascade_options import CascadeOptions
from clim_models.detection.detic_checkpoints import TEXT, DeticDetector, load_detic
from clim_models.detection.heads.text_classifier import ClassSet
from clim_models.open_clip_compat import no_weights_yet
from clim_models.region_model import RegionModel

IMAGE_TOWER = "clip.visual."


class DeticKind(NamedTuple):
    """The detector of a kind, its options, and its builder."""

    detector: type[DeticDetector]
    options: type[C4Options] | type[CascadeOptions]
    build: Callable[..., DeticDetector]


def build_cascade(classes: ClassSet, options: CascadeOptions) -> CascadeDetector:
    """Build a cascade without its numbers of images, which only a training needs."""
    return CascadeDetector(classes, torch.ones(classes.num_classes), options)


DETIC_KINDS = {
    "detic_c4": DeticKind(C4Detector, C4Options, C4Detector),
    "detic_cascade": DeticKind(CascadeDetector, CascadeOptions, build_cascade),
}


def text_entries(detector: DeticDetector) -> dict[str, Tensor]:
    """Return the weights of a detector's text tower, as its folder holds them."""
    if detector.text is None:
        return {}
    entries = detector.text.state_dict()
    return {TEXT + key: value for key, value in entries.items() if not key.startswith(IMAGE_TOWER)}


def build_detic(
    kind: str, options: Mapping[str, Any], classes: ClassSet, tensors: Mapping[str, Tensor]
) -> DeticDetector:
    """Build a detector and load its weights.

    Args:
        kind: of `DETIC_KINDS`.
        options: as JSON holds them.
        classes: of the folder.
        tensors: of the folder.

    Raises:
        TypeError, KeyError: the options are of another release.
        ValueError: the weights do not fit.
    """
    about = DETIC_KINDS[kind]
    detector = about.build(classes, rebuilt(about.options, options))
    load_detic(detector, tensors)
    return detector


def build_text_tower(name: str, tensors: Mapping[str, Tensor]) -> RegionModel:
    """Build the text tower of a folder; its image tower has no weights.

    Raises:
        ValueError: weights of the text tower are missing.
    """
    with no_weights_yet():
        model = create_model(name)
    own = model.state_dict()
    given = {
        key.removeprefix(TEXT): value for key, value in tensors.items() if key.startswith(TEXT)
    }
    missing = [key for key in own if not key.startswith(IMAGE_TOWER) and key not in given]
    if missing:
        raise ValueError(
            f"the folder lacks {missing[:8]} of the text tower {name}: export the detector again"
        )
    model.load_state_dict(own | given)
    return model.eval()


def rebuilt(kind: type, entry: Mapping[str, Any]) -> Any:
    """Make an option object of JSON values: objects of dicts, tuples of lists.

    Raises:
        TypeError: an option that the object does not have, or a value of another type.
    """
    if not isinstance(entry, Mapping):
        raise TypeError(f"the options of {kind.__name__} are {str(entry)[:60]}")
    hints = get_type_hints(kind)
    values = {}
    known = {field.name for field in fields(kind)}
    for name, value in entry.items():
        if name not in known:
            raise TypeError(f"{kind.__name__} has no option {name!r}")
        nested = [one for one in (hints[name], *get_args(hints[name])) if is_dataclass(one)]
        if isinstance(value, Mapping) and nested:
            value = rebuilt(nested[0], value)  # type: ignore[arg-type]  # a class, not an instance
        values[name] = _tuples(value)
        if not _fits(values[name], hints[name]):
            raise TypeError(f"{name} of {kind.__name__} is {str(value)[:60]}")
    return kind(**values)


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value of JSON is of the type of an option."""
    kinds = get_args(hint)
    if get_origin(hint) is Literal:
        return value in kinds
    if get_origin(hint) is tuple:
        return isinstance(value, tuple)
    if kinds:
        return any(_fits(value, one) for one in kinds)
    if hint in (int, float):
        return type(value) in (int, hint) and math.isfinite(value)
    return isinstance(value, hint)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value
