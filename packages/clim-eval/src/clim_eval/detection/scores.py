"""Average precision of a file of results by the protocols that papers report."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clim_eval.detection.annotations import DetectionTruth, Protocol
from clim_eval.detection.options import ProtocolOptions
from clim_eval.metrics.detection import CategoryPrecision, coco_ap, group_ap, precision_of_tables
from clim_eval.metrics.lvis import frequency_ap, lvis_precision
from clim_eval.metrics.tables import IOU_TYPES, ResultTable, TruthTable

Records = Callable[[], Iterable[Mapping[str, Any]]]
# The field of a detection that each IoU type compares.
FIELD = {"bbox": "bbox", "segm": "segmentation"}


@dataclass(frozen=True)
class ClassRow:
    """AP of one category, nan without annotation.

    name: of the category. group: "base", "novel", a frequency of LVIS, or "". annotations: how many
    there are, without crowds. ap: over IoU 0.50 to 0.95. ap50: at IoU 0.50.
    """

    name: str
    group: str
    annotations: int
    ap: float
    ap50: float


@dataclass(frozen=True)
class DetectionScores:
    """Figures of a file of results.

    metrics: fractions by PROTOCOL.IOU_TYPE.NAME. classes: the table of each IoU type.
    """

    metrics: dict[str, float]
    classes: dict[str, list[ClassRow]]


def score_results(
    truth: DetectionTruth,
    detections: Records,
    options: ProtocolOptions | None = None,
    *,
    without: Collection[Any] = (),
) -> DetectionScores:
    """Score detections against annotations.

    Args:
        truth: of `DetectionTruth.read`.
        detections: gives COCO results each time it is called, for example a stream of a file.
        options: how they are scored.
        without: ids of images that do not count.

    Returns:
        Under "lvis": "lvis.bbox.APr", and with at most 10,000 of each class "lvis_fixed.bbox.APr";
        see `lvis_ap`. For other files "coco.bbox.AP" and so on, and under "fvit" or "ovdet"
        "fvit.bbox.AP50_novel" and so on, see `open_vocabulary_ap`. "segm" for masks.

    Raises:
        ValueError: the file does not fit the protocol, or a detection cannot be used.
    """
    options = options or ProtocolOptions()
    protocol = truth.protocol(options)
    contents = truth.contents(without)
    metrics: dict[str, float] = {}
    classes = {}
    for iou_type in options.iou_types or _iou_types(truth, detections):
        table = TruthTable.of(contents, iou_type, crowds=protocol.name != "lvis")
        _check_sizes(truth, table)
        results = ResultTable.of(detections(), table, box_areas=protocol.name == "lvis")
        found, figures = _figures(contents, protocol, table, results)
        for name, value in figures.items():
            head, _, tail = name.partition(".")
            metrics[f"{head}.{iou_type}.{tail}"] = value
        classes[iou_type] = _class_rows(protocol, contents, table, found)
    return DetectionScores(metrics, classes)


def _iou_types(truth: DetectionTruth, detections: Records) -> list[str]:
    """Return the IoU types of which both the detections and the annotations have shapes."""
    first = next(iter(detections()), None)
    if first is None:
        return ["bbox"]
    found = [name for name in IOU_TYPES if FIELD[name] in first]
    return [name for name in found if name == "bbox" or truth.has_masks] or ["bbox"]


def _figures(
    contents: Mapping[str, Any], protocol: Protocol, table: TruthTable, results: ResultTable
) -> tuple[CategoryPrecision, dict[str, float]]:
    """Return the AP of each category, and the figures by PROTOCOL.NAME."""
    if protocol.name == "lvis":
        frequencies = [category["frequency"] for category in contents["categories"]]
        found = lvis_precision(contents, table, results)
        fixed = lvis_precision(contents, table, results, fixed=True)
        metrics = {}
        for head, part in (("lvis", found), ("lvis_fixed", fixed)):
            for name, value in frequency_ap(part, frequencies).items():
                metrics[f"{head}.{name}"] = value
        return found, metrics

    found = precision_of_tables(table, results)
    metrics = {}
    if protocol.name != "coco":
        groups = {"base": protocol.base, "novel": protocol.novel}
        metrics = group_ap(found, **groups, protocol=protocol.name)
    metrics |= {f"coco.{name}": value for name, value in coco_ap(found).items()}
    return found, metrics


def _class_rows(
    protocol: Protocol, contents: Mapping[str, Any], table: TruthTable, found: CategoryPrecision
) -> list[ClassRow]:
    labels = table.objects.labels[~table.ignored]
    counts = np.bincount(labels, minlength=len(table.names)).tolist()
    return [
        ClassRow(
            name=str(category["name"]),
            group=protocol.group_of(category),
            annotations=counts[label],
            ap=float(found.average[:, label].mean()),
            ap50=float(found.at_50[label]),
        )
        for label, category in enumerate(contents["categories"])
    ]


def _check_sizes(truth: DetectionTruth, table: TruthTable) -> None:
    if table.iou_type == "segm" and not table.sizes.all():
        raise ValueError(
            f"{truth.path} has images without height and width, which masks need: add them, or "
            "score boxes with --iou-types bbox"
        )
