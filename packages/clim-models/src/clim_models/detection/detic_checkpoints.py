"""Weights for the detectors of Detic + CLIM: of a release, of ours, or of a ResNet alone."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from clim_models.checkpoints.layouts import unwrap
from clim_models.checkpoints.load import read_checkpoint
from clim_models.detection.c4 import C4Detector
from clim_models.detection.cascade import CascadeDetector
from clim_models.detection.checkpoints import (
    CLASSES,
    DetectorLoadReport,
    check_class_count,
    check_entries,
)
from clim_models.detection.detic_names import c4_names, cascade_names

DeticDetector = C4Detector | CascadeDetector
ResNetStyle = Literal["caffe", "torchvision"]

IMAGE_LEVEL = "image_level."
QUEUE = ".queue."
# Entries of a saved detector that belong to its text tower.
TEXT = "text."
# Of a ResNet: its classifier, and counters that frozen norms do not have.
_UNUSED_OF_RESNET = ("fc.", "num_batches_tracked")


RENAMINGS: dict[str, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "detic_coco": c4_names,
    "detic_lvis": cascade_names,
    "clim": dict,
}


def recognise_detic(keys: set[str]) -> str:
    """Return the name of the layout: "detic_coco", "detic_lvis" or "clim"."""
    if any(key.startswith("roi_head.shared_head.") for key in keys):
        return "detic_coco"
    is_released = any(key.startswith("roi_head.bbox_head.") for key in keys)
    return "detic_lvis" if is_released else "clim"


def load_detic(
    detector: DeticDetector,
    path_or_state_dict: str | Path | Mapping[str, Any],
    *,
    keep_classes: bool = False,
) -> DetectorLoadReport:
    """Load a released detector of Detic + CLIM, or one of ours, strictly.

    A base checkpoint has no losses of captions and tags: those of the detector stay as they are.
    Queues of captions are not read.

    Args:
        detector: of the same layers.
        path_or_state_dict: a file of a release, a run folder or file of ours, or its contents.
        keep_classes: keep the detector's own class embeddings.

    Returns:
        The layout and the number of tensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of the other detector, has another number of classes, or other
            layers; the differing entries are listed.
    """
    source, tensors = _read(path_or_state_dict)
    layout = recognise_detic(set(tensors))
    wanted = "detic_coco" if isinstance(detector, C4Detector) else "detic_lvis"
    if layout not in (wanted, "clim"):
        raise ValueError(
            f"{source} is a detector of {layout}, and this one is of {wanted}: build a "
            "C4Detector for OV-COCO, a CascadeDetector for OV-LVIS"
        )
    renamed = RENAMINGS[layout](tensors)

    own = detector.state_dict()
    unused = [key for key in renamed if _has_no_place(key, own, keep_classes)]
    for key in unused:
        del renamed[key]
    if CLASSES in renamed:
        check_class_count(own[CLASSES], renamed[CLASSES], source)

    has_level = any(key.startswith(IMAGE_LEVEL) for key in renamed)
    optional = {
        key
        for key in own
        if QUEUE in key
        or key.endswith("temperature")
        or (key.startswith(IMAGE_LEVEL) and not has_level)
        or (key == CLASSES and keep_classes)
    }
    check_entries(own, renamed, optional, source)
    detector.load_state_dict(own | renamed)
    return DetectorLoadReport(layout, source, len(renamed), tuple(unused))


def _has_no_place(key: str, own: Mapping[str, Tensor], keep_classes: bool) -> bool:
    """Tell whether an entry of a file is not for the detector, and need not be."""
    if QUEUE in key or key.startswith(TEXT):
        return True
    # Losses that this detector does not have.
    if key.startswith(IMAGE_LEVEL) and key not in own:
        return True
    return keep_classes and key == CLASSES


def load_resnet(
    detector: DeticDetector,
    path_or_state_dict: str | Path | Mapping[str, Any],
    *,
    style: ResNetStyle,
) -> DetectorLoadReport:
    """Load an image classifier's ResNet into the backbone of a detector, strictly.

    Files of Caffe (MSRA, as mmdetection and detectron2 give them) and of torchvision or timm have
    the same names, and mean other networks: the stride of a stage sits in its first 1x1 convolution
    or in its 3x3 one, and pixels come as BGR with a standard deviation of 1 or as normalised RGB.
    No file says which it is, so the caller does.

    Args:
        detector: built for the same style.
        path_or_state_dict: a file of weights, or its contents; its classifier is not used.
        style: "caffe" or "torchvision".

    Returns:
        The layout and the number of tensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the detector is built for the other style, or the file has other layers; missing
            ones are listed.
    """
    if style not in get_args(ResNetStyle):
        raise ValueError(f"style={style!r}; legal values are {', '.join(get_args(ResNetStyle))}")
    options = detector.options
    is_caffe = style == "caffe"
    if (options.resnet.stride_in_1x1, options.images.bgr) != (is_caffe, is_caffe):
        raise ValueError(
            f"weights of {style} in a detector with stride_in_1x1={options.resnet.stride_in_1x1} "
            f"and bgr={options.images.bgr} would compute something else without an error: build it "
            f"with ResNetRules(stride_in_1x1={is_caffe}) and the pixels of {style}"
        )
    source, tensors = _read(path_or_state_dict)
    renamed, unused = {}, []
    for key, value in tensors.items():
        name = key.removeprefix("backbone.")
        if name.startswith(_UNUSED_OF_RESNET[0]) or name.endswith(_UNUSED_OF_RESNET[1]):
            unused.append(key)
            continue
        inside = "box_head." if _is_head(name, detector) else "backbone."
        renamed[inside + name] = value

    own = {
        key: value
        for key, value in detector.state_dict().items()
        if key.startswith(("backbone.", "box_head.layer4."))
    }
    check_entries(own, renamed, set(), source)
    detector.load_state_dict(detector.state_dict() | renamed)
    return DetectorLoadReport(style, source, len(renamed), tuple(unused))


def _is_head(name: str, detector: DeticDetector) -> bool:
    """Tell whether a layer of the ResNet belongs to the box head of the detector."""
    return isinstance(detector, C4Detector) and name.startswith("layer4.")


def _read(path_or_state_dict: str | Path | Mapping[str, Any]) -> tuple[str, dict[str, Tensor]]:
    """Return the name of a source for messages, and its tensors."""
    if isinstance(path_or_state_dict, Mapping):
        return "state dict", unwrap(path_or_state_dict)
    return str(path_or_state_dict), unwrap(read_checkpoint(Path(path_or_state_dict)))
