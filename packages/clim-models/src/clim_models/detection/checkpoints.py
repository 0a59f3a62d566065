"""Released detectors: their weights under our names, loaded strictly."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from clim_models.checkpoints.layouts import rename_key, to_open_clip, unwrap
from clim_models.checkpoints.load import read_checkpoint
from clim_models.checkpoints.tensor_files import check_values
from clim_models.detection.detector import TwoStageDetector

TOWER = "backbone.model.clip."
CLASSES = "classes.embeddings"
BACKGROUND = "box_head.classifier.background."
TEMPERATURE = "box_head.classifier.temperature"
# Differing keys that an error lists, of each kind.
LISTED = 8

# Both releases name their parts as mmdetection does.
SHARED_NAMES = (
    (r"^backbone\.interpolate1\.", "backbone.pyramid.to_quarter."),
    (r"^backbone\.interpolate2\.0\.", "backbone.pyramid.to_half."),
    (r"^neck\.lateral_convs\.", "neck.laterals."),
    (r"^neck\.fpn_convs\.", "neck.outputs."),
    (r"^neck\.extra_downsamples\.0\.0\.", "neck.coarsest."),
    (r"^neck\.fpn_stages\.(\d+)\.gp_64_4\.out_conv\.", r"neck.stages.\1.attend_6_to_4.layer."),
    (r"^neck\.fpn_stages\.(\d+)\.sum_44_4\.out_conv\.", r"neck.stages.\1.add_4_to_4.layer."),
    (r"^neck\.fpn_stages\.(\d+)\.sum_43_3\.out_conv\.", r"neck.stages.\1.add_4_to_3.layer."),
    (r"^neck\.fpn_stages\.(\d+)\.sum_34_4\.out_conv\.", r"neck.stages.\1.add_3_to_4.layer."),
    (r"^neck\.fpn_stages\.(\d+)\.sum_55_5\.out_conv\.", r"neck.stages.\1.add_to_5.layer."),
    (r"^neck\.fpn_stages\.(\d+)\.sum_77_7\.out_conv\.", r"neck.stages.\1.add_to_7.layer."),
    (r"^neck\.fpn_stages\.(\d+)\.gp_75_6\.out_conv\.", r"neck.stages.\1.attend_7_to_6.layer."),
    (r"^rpn_head\.rpn_conv\.", "rpn.convs."),
    (r"^rpn_head\.rpn_cls\.", "rpn.objectness."),
    (r"^rpn_head\.rpn_reg\.", "rpn.deltas."),
    (r"^roi_head\.mask_head\.conv_logits\.", "mask_head.logits."),
    (r"^roi_head\.mask_head\.", "mask_head."),
    (r"^roi_head\.bbox_head\.shared_convs\.", "box_head.convs."),
    (r"^roi_head\.bbox_head\.shared_fcs\.0\.", "box_head.shared.0."),
    (r"^roi_head\.bbox_head\.shared_fcs\.1\.", "box_head.shared.2."),
    (r"^roi_head\.bbox_head\.cls_fcs\.0\.", "box_head.class_layer.0."),
    (r"^roi_head\.bbox_head\.reg_fcs\.0\.", "box_head.box_layer.0."),
    (r"^roi_head\.bbox_head\.fc_reg\.", "box_head.deltas."),
    (r"\.bn\.", ".norm."),
)
FVIT_NAMES = (
    (r"^roi_head\.bbox_head\.detect_temperature$", TEMPERATURE),
    *SHARED_NAMES,
)
FROZEN_CLIP_NAMES = (
    (r"^roi_head\.bbox_head\.fc_cls\.", "box_head.project."),
    (r"^roi_head\.bbox_head\.cls_temp$", TEMPERATURE),
    (r"^roi_head\.bbox_head\.cls_embeddings$", CLASSES),
    (r"^roi_head\.bbox_head\.bg_embedding\.", f"{BACKGROUND}layer."),
    *SHARED_NAMES,
)


@dataclass(frozen=True)
class DetectorLoadReport:
    """The result of `load_detector`.

    Attributes:
        layout: "fvit", "frozen_clip", or "clim" (the names of this package).
        source: a path, or "state dict".
        loaded: number of tensors.
        unused: entries of the file that this detector has no place for, and need not have.
    """

    layout: str
    source: str
    loaded: int
    unused: tuple[str, ...]


def fvit_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries of an F-ViT release; its unused layer is dropped.

    Args:
        tensors: the state dict of the release.

    Returns:
        The same tensors under the names of this package, the tower under `backbone.model.clip.`.
    """
    embeddings = "roi_head.bbox_head.all_embeddings"
    learned = "roi_head.bbox_head.bg_embedding"
    special = (embeddings, learned, "roi_head.bbox_head.fc_cls.")
    plain = {key: value for key, value in tensors.items() if not key.startswith(special)}

    renamed = _rename(plain, FVIT_NAMES)
    # (C, K + 1), the background last.
    if embeddings in tensors:
        columns = tensors[embeddings]
        renamed[CLASSES] = columns[:, :-1].T.contiguous()
        renamed[f"{BACKGROUND}embedding"] = columns[:, -1].contiguous()
    if learned in tensors:
        renamed[f"{BACKGROUND}embedding"] = tensors[learned][:, 0].contiguous()
    return renamed


def frozen_clip_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries of a frozen-CLIP release of CLIM.

    Args:
        tensors: the state dict of the release.

    Returns:
        The same tensors under the names of this package, the tower under `backbone.model.clip.`.
    """
    return _rename(tensors, FROZEN_CLIP_NAMES)


LAYOUTS: dict[str, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = {
    "fvit": fvit_names,
    "frozen_clip": frozen_clip_names,
    "clim": dict,
}


def recognise_detector(keys: set[str]) -> str:
    """Return the name of the layout: "fvit", "frozen_clip" or "clim"."""
    if "roi_head.bbox_head.all_embeddings" in keys:
        return "fvit"
    is_released = any(key.startswith("roi_head.bbox_head.") for key in keys)
    return "frozen_clip" if is_released else "clim"


def load_detector(
    detector: TwoStageDetector,
    path_or_state_dict: str | Path | Mapping[str, Any],
    *,
    keep_classes: bool = False,
) -> DetectorLoadReport:
    """Load a released detector, or one saved by `detector.state_dict()`, strictly.

    The file's class embeddings replace those of the detector, so the detector's class names must be
    those of the file, in the same order.

    Args:
        detector: of the same tower, neck and heads.
        path_or_state_dict: a file of a release or of ours, or its contents.
        keep_classes: keep the detector's own classes and background, for a transfer to another
            vocabulary.

    Returns:
        The layout and the numbers of tensors. Masks of the file are not used by a detector without
        mask head.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another number of classes, another tower, or other layers; the differing entries
            are listed.
    """
    if isinstance(path_or_state_dict, Mapping):
        source, raw = "state dict", path_or_state_dict
    else:
        source = str(path_or_state_dict)
        raw = read_checkpoint(Path(path_or_state_dict))

    tensors = unwrap(raw)
    layout = recognise_detector(set(tensors))
    renamed = LAYOUTS[layout](tensors)

    own = detector.state_dict()
    unused = _unused(detector, renamed, keep_classes)
    for key in unused:
        del renamed[key]
    if CLASSES in renamed:
        check_class_count(own[CLASSES], renamed[CLASSES], source)

    check_entries(own, renamed, _optional(own, keep_classes, detector), source)
    # Entries that the file may lack stay as they are.
    detector.load_state_dict(own | renamed)
    return DetectorLoadReport(layout, source, len(renamed), tuple(unused))


def _rename(tensors: Mapping[str, Tensor], names: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Rename everything by patterns, and the tower by the names of open_clip."""
    tower, renamed = {}, {}
    for key, value in tensors.items():
        if key.startswith("backbone.visual."):
            tower[key.removeprefix("backbone.")] = value
            continue
        renamed[rename_key(key, names)] = value

    for key, value in to_open_clip(tower, text_prefix=False).items():
        renamed[TOWER + key] = value
    return renamed


def _unused(
    detector: TwoStageDetector, renamed: Mapping[str, Tensor], keep_classes: bool
) -> list[str]:
    """List entries that the detector replaces by its own, or has no head for."""
    parts = ["mask_head."] if detector.mask_head is None else []
    if not isinstance(detector.box_head.classifier.temperature, nn.Parameter):
        parts.append(TEMPERATURE)
    if keep_classes:
        parts += [CLASSES, f"{BACKGROUND}embedding"]
    return [key for key in renamed if key.startswith(tuple(parts))] if parts else []


def _optional(own: Mapping[str, Tensor], keep_classes: bool, detector: TwoStageDetector) -> set:
    """Return entries of the detector that a file may lack."""
    found = set()
    for key in own:
        is_tower = key.startswith(TOWER)
        is_text = is_tower and not key.startswith(f"{TOWER}visual.")
        # Batch norms of the releases may lack their counters; evaluation does not read them.
        if is_text or key.endswith("num_batches_tracked"):
            found.add(key)
    if not isinstance(detector.box_head.classifier.temperature, nn.Parameter):
        found.add(TEMPERATURE)
    if keep_classes:
        found |= {CLASSES, f"{BACKGROUND}embedding"}
    return found


def check_class_count(own: Tensor, new: Tensor, source: str) -> None:
    """Raise ValueError unless a file has the class embeddings (K, C) of a detector's shape."""
    if own.shape != new.shape:
        raise ValueError(
            f"{source} has {new.shape[0]} classes of {new.shape[1]} channels, the detector "
            f"{own.shape[0]} of {own.shape[1]}; build it with the names of the file in their "
            "order, or pass keep_classes=True to keep the detector's vocabulary"
        )


def check_entries(
    own: Mapping[str, Tensor], new: Mapping[str, Tensor], optional: set, source: str
) -> None:
    """Raise ValueError, with the differing entries, unless a file has the entries of a detector.

    Their values must be finite.

    Args:
        own: entries of the detector.
        new: entries of the file, under the same names.
        optional: names that the file may lack.
        source: the file, for the message.
    """
    missing = sorted(own.keys() - new.keys() - optional)
    unexpected = sorted(new.keys() - own.keys())
    shapes = []
    for key in sorted(own.keys() & new.keys()):
        if own[key].shape != new[key].shape:
            shapes.append(f"{key} {tuple(new[key].shape)} for {tuple(own[key].shape)}")
    if not (missing or unexpected or shapes):
        check_values(own, new, source=source)
        return

    tower = [key for key in (*missing, *unexpected, *shapes) if key.startswith(TOWER)]
    verdict = "another tower" if tower else "other layers"
    lists = []
    for title, keys in (("missing", missing), ("unexpected", unexpected), ("mis-shaped", shapes)):
        if keys:
            more = f", ... ({len(keys)} in all)" if len(keys) > LISTED else ""
            lists.append(f"  {title}: {', '.join(keys[:LISTED])}{more}")
    raise ValueError(
        f"{source} does not fit this detector: it has {verdict}.\n"
        + "\n".join(lists)
        + "\nBuild the detector with the tower and the preset that the file was trained with"
    )
