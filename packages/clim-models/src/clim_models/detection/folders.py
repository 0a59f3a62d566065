"""A detector as a folder: weights, class names, and the options of its builder."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clim_models.checkpoints.atomic import write_json
from clim_models.checkpoints.load import WEIGHTS_FILE, export_folder, read_checkpoint
from clim_models.checkpoints.tensor_files import save_tensors
from clim_models.create import create_model
from clim_models.detection.checkpoints import BACKGROUND, CLASSES, load_detector
from clim_models.detection.detector import TwoStageDetector
from clim_models.detection.detic_checkpoints import DeticDetector
from clim_models.detection.detic_folders import (
    DETIC_KINDS,
    build_detic,
    build_text_tower,
    rebuilt,
    text_entries,
)
from clim_models.detection.frozen_clip import FrozenClipOptions, build_frozen_clip
from clim_models.detection.fvit import FViTOptions, build_fvit
from clim_models.detection.heads.text_classifier import ClassSet
from clim_models.detection.rules import DetectorOptions
from clim_models.foreign import check_foreign_name
from clim_models.open_clip_compat import no_weights_yet
from clim_models.version import __version__

CLASSES_FILE = "classes.json"
DETECTOR_FILE = "detector.json"


class Kind(NamedTuple):
    """The options of a kind of detector, and its builder."""

    options: type[DetectorOptions]
    build: Callable[..., TwoStageDetector]


KINDS = {
    "fvit": Kind(FViTOptions, build_fvit),
    "frozen_clip": Kind(FrozenClipOptions, build_frozen_clip),
}


def save_detector(
    detector: TwoStageDetector | DeticDetector,
    folder: str | Path,
    state: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write `model.safetensors`, `classes.json` and `detector.json`.

    `load_detector` reads the weights into an existing detector (`load_detic` those of Detic),
    `open_detector` builds it. Both towers are in the file: new classes need the text tower. A
    detector without a builder, or whose tower has no name, gets no `detector.json`.

    Args:
        detector: the one to write.
        folder: is made if it is not there.
        state: entries of `detector.state_dict()`; None takes those of the detector.

    Returns:
        Path of the weights.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    entries = dict(detector.state_dict() if state is None else state)
    if not isinstance(detector, TwoStageDetector):
        entries |= text_entries(detector)
    # Entries may share memory, which safetensors does not write.
    weights = {key: value.detach().cpu().contiguous().clone() for key, value in entries.items()}

    path = folder / WEIGHTS_FILE
    save_tensors(weights, path)
    base = [detector.names[label] for label in detector.classes.base]
    rejected = detector.classes.num_columns - detector.classes.num_classes
    named = {"names": list(detector.names), "base": base, "rejected": rejected}
    write_json(folder / CLASSES_FILE, named)

    # Last: a folder with this file is complete.
    about = (
        _description(detector)
        if isinstance(detector, TwoStageDetector)
        else _detic_description(detector)
    )
    if about is not None:
        write_json(folder / DETECTOR_FILE, about)
    return path


def open_detector(
    folder: str | Path, *, device: str | torch.device = "cpu", trusted: bool = False
) -> TwoStageDetector:
    """Build the detector that `save_detector` wrote, with its weights and classes.

    Args:
        folder: of the detector, or the run folder of a training.
        device: where it goes.
        trusted: accept the name of a tower that open_clip does not list, which may bring code.

    Returns:
        The detector in evaluation mode. One of Detic is a `C4Detector` or a `CascadeDetector`; both
        have the same methods to detect and to exchange classes.

    Raises:
        FileNotFoundError: there is no such folder, or it has no detector.
        ValueError: a file is damaged or of another release, or the name of the tower is not known.
    """
    path = export_folder(Path(folder))
    if not (path / DETECTOR_FILE).is_file():
        raise FileNotFoundError(
            f"{folder} holds no {DETECTOR_FILE}: pass the run folder of a detector's training that "
            "is finished (`clim-train export RUN` finishes a stopped one), or a folder that "
            "save_detector wrote"
        )

    about, named = _read(path / DETECTOR_FILE), _read(path / CLASSES_FILE)
    tensors = read_checkpoint(path)
    if CLASSES not in tensors:
        raise ValueError(
            f"{path / WEIGHTS_FILE} has no class embeddings: export the detector again"
        )
    try:
        names = _names(named["names"])
        _check_count(path, len(names), named.get("rejected"), len(tensors[CLASSES]))
        label_of = {name: label for label, name in enumerate(names)}
        classes = ClassSet(names, tensors[CLASSES], [label_of[one] for one in named["base"]])
        is_detic = about["kind"] in DETIC_KINDS
        open_kind = _open_detic if is_detic else _open_on_tower
        detector = open_kind(path, about, classes, tensors, trusted)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not as this release writes detectors ({error!r}): export it again"
        ) from error
    return detector.to(device).eval()


def _open_on_tower(
    path: Path,
    about: Mapping[str, Any],
    classes: ClassSet,
    tensors: Mapping[str, Tensor],
    trusted: bool,
) -> Any:
    """Build a detector on a frozen tower."""
    kind = KINDS[about["kind"]]
    options = rebuilt(kind.options, about["options"])
    name = about["tower"]
    mean, std = (_three_numbers(about[field], field) for field in ("mean", "std"))

    known = name if trusted else check_foreign_name(name, path / DETECTOR_FILE)
    with no_weights_yet():
        tower = create_model(known)
    tower.image_mean, tower.image_std = mean, std
    background = tensors.get(f"{BACKGROUND}embedding")
    detector = kind.build(tower, classes, options, background=background)
    load_detector(detector, tensors)
    return detector


def _open_detic(
    path: Path,
    about: Mapping[str, Any],
    classes: ClassSet,
    tensors: Mapping[str, Tensor],
    trusted: bool,
) -> Any:
    """Build a detector of Detic, and its text tower where the folder has one."""
    detector = build_detic(about["kind"], about["options"], classes, tensors)
    name = about["tower"]
    if name is not None:
        known = name if trusted else check_foreign_name(name, path / DETECTOR_FILE)
        detector.attach_text(build_text_tower(known, tensors))
    return detector


def _names(entry: Any) -> list[str]:
    """Return the names of classes.

    Raises:
        TypeError: they are something else.
    """
    if not isinstance(entry, list) or not all(isinstance(name, str) for name in entry):
        raise TypeError(f"names are {str(entry)[:60]}, not a list of texts")
    return entry


def _check_count(path: Path, names: int, rejected: int | None, rows: int) -> None:
    """Refuse the names of another detector.

    Args:
        path: of the folder.
        names: number of classes by `classes.json`.
        rejected: number of phrases that compete and are never returned; older releases do not
            write it, and None accepts any.
        rows: embeddings in the weights.

    Raises:
        ValueError: another number of embeddings.
    """
    if rejected is not None and names + rejected != rows:
        raise ValueError(
            f"{path / CLASSES_FILE} names {names} classes, the weights have {rows - rejected}: put "
            "back the file of this detector, or export it again"
        )


def _three_numbers(entry: Any, field: str) -> tuple[float, float, float]:
    """Return a mean or standard deviation of pictures.

    Raises:
        TypeError: it is something else.
    """
    numbers = entry if isinstance(entry, list) else []
    sound = [one for one in numbers if type(one) in (int, float) and 0 <= one < math.inf]
    if len(numbers) != 3 or len(sound) != 3 or (field == "std" and min(sound) == 0):
        raise TypeError(f"{field} is {str(entry)[:60]}, not three numbers")
    return sound[0], sound[1], sound[2]


def _description(detector: TwoStageDetector) -> dict[str, Any] | None:
    """Return the content of `detector.json`, None if the detector cannot be built from one."""
    tower = detector.backbone.model
    kinds = [name for name, kind in KINDS.items() if type(detector.options) is kind.options]
    if not kinds or detector.options is None or tower.name is None:
        return None
    return {
        "kind": kinds[0],
        "clim_models": __version__,
        "tower": tower.name,
        "mean": list(tower.image_mean),
        "std": list(tower.image_std),
        "options": asdict(detector.options),
    }


def _detic_description(detector: DeticDetector) -> dict[str, Any]:
    """Return the content of `detector.json`."""
    kinds = [name for name, kind in DETIC_KINDS.items() if type(detector) is kind.detector]
    return {
        "kind": kinds[0],
        "clim_models": __version__,
        "tower": None if detector.text is None else detector.text.name,
        "options": asdict(detector.options),
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing: export the detector again") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}): export the detector again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no object: export the detector again")
    return content
