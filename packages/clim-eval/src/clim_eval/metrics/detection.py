"""Average precision of open-vocabulary detectors on COCO.

Two protocols are in use, and their numbers cannot be compared, so the protocol is part of every
metric's name:

- "fvit": one file with the base and novel categories only, and its pictures (4,836 of val2017).
- "ovdet": all pictures (5,000), so that boxes on pictures without such objects count as wrong. It
  has no figure over base and novel classes together.
"""

import contextlib
import copy
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from clim_eval.metrics.masks import mean_of_known

PROTOCOLS = ("fvit", "ovdet")
IOU_TYPES = ("bbox", "segm")
# Boxes per picture that count: the first for AP over thresholds, the last for AP50 per class.
BOXES_PER_PICTURE = (100, 300, 1000)


@dataclass(frozen=True)
class CategoryPrecision:
    """AP of each category: nan where there is no annotation.

    Attributes:
        names: of the K categories, in the order of the file.
        average: (10, K) at IoU 0.50 to 0.95, at most 100 boxes per picture.
        at_50, at_75: (K,) at IoU 0.50 and 0.75, at most 1000 boxes per picture.
    """

    names: tuple[str, ...]
    average: np.ndarray
    at_50: np.ndarray
    at_75: np.ndarray


def category_precision(
    truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], *, iou_type: str = "bbox"
) -> CategoryPrecision:
    """Compute the AP of each category with pycocotools.

    Args:
        truth: contents of a COCO annotation file. Crowd annotations are ignored regions.
        detections: COCO results: `image_id`, `category_id`, `score`, and `bbox` (x, y, width,
            height) or `segmentation` (RLE).
        iou_type: "bbox" or "segm".

    Raises:
        ValueError: an unknown IoU type, no category, or a detection of a picture or category that
            the file does not have.
    """
    _check(truth, detections, iou_type)
    names = tuple(str(category["name"]) for category in truth["categories"])
    ids = [category["id"] for category in truth["categories"]]
    if not detections:
        return _without_detections(truth, names, ids)

    # pycocotools writes into what it is given, and prints.
    with contextlib.redirect_stdout(io.StringIO()):
        true = _index({**truth, "annotations": copy.deepcopy(list(truth["annotations"]))})
        results = [_result(detection, iou_type) for detection in detections]
        evaluation = COCOeval(true, true.loadRes(results), iou_type)
        evaluation.params.catIds = ids
        evaluation.params.imgIds = [image["id"] for image in truth["images"]]
        evaluation.params.maxDets = list(BOXES_PER_PICTURE)
        # One range of areas: other ranges are not reported.
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        evaluation.evaluate()
        evaluation.accumulate()

    # (thresholds, recalls, categories, areas, numbers of boxes); -1 without annotation.
    precision = np.where(evaluation.eval["precision"] < 0, np.nan, evaluation.eval["precision"])
    precision = precision[:, :, :, 0].mean(axis=1)  # (thresholds, categories, numbers of boxes)
    return CategoryPrecision(
        names, precision[:, :, 0], at_50=precision[0, :, -1], at_75=precision[5, :, -1]
    )


def open_vocabulary_ap(
    truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    *,
    base: Collection[str],
    novel: Collection[str],
    protocol: str,
    iou_type: str = "bbox",
) -> dict[str, float]:
    """Compute AP50 of base, novel and all classes of OV-COCO.

    Args:
        truth, detections, iou_type: as in `category_precision`.
        base, novel: names of categories. Those of neither group do not count.
        protocol: "fvit" or "ovdet", the rule that `truth` and its pictures were made by.

    Returns:
        Fractions: "PROTOCOL.AP50_GROUP", "PROTOCOL.AP75_GROUP" and "PROTOCOL.AP_GROUP" (over IoU
        0.50 to 0.95), where GROUP is "base", "novel" and, for "fvit", "all". Means leave out
        classes without annotation; nan of none.

    Raises:
        ValueError: an unknown protocol, a name that the file does not have or that is in both
            groups, or categories of neither group under "fvit"; or as `category_precision`.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r} is not known: choose from {', '.join(PROTOCOLS)}")
    names = {str(category["name"]) for category in truth["categories"]}
    _check_groups(names, set(base), set(novel), protocol)

    found = category_precision(truth, detections, iou_type=iou_type)
    metrics = {}
    for group, members in (("base", base), ("novel", novel)):
        rows = [i for i, name in enumerate(found.names) if name in members]
        metrics[f"AP50_{group}"] = mean_of_known(found.at_50[rows])
        metrics[f"AP75_{group}"] = mean_of_known(found.at_75[rows])
        metrics[f"AP_{group}"] = mean_of_known(found.average[:, rows])
    if protocol == "fvit":
        metrics["AP50_all"] = mean_of_known(found.at_50)
        metrics["AP75_all"] = mean_of_known(found.at_75)
        metrics["AP_all"] = mean_of_known(found.average)
    return {f"{protocol}.{name}": value for name, value in metrics.items()}


def check_iou_type(iou_type: str) -> None:
    """Refuse an unknown IoU type.

    Raises:
        ValueError: it is neither "bbox" nor "segm".
    """
    if iou_type not in IOU_TYPES:
        raise ValueError(f"iou_type={iou_type!r} is not known: choose from {', '.join(IOU_TYPES)}")


def _check(
    truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], iou_type: str
) -> None:
    check_iou_type(iou_type)
    if not truth["categories"]:
        raise ValueError("the annotations have no category: pass a whole COCO file")

    images = {image["id"] for image in truth["images"]}
    categories = {category["id"] for category in truth["categories"]}
    for detection in detections:
        if detection["image_id"] not in images or detection["category_id"] not in categories:
            raise ValueError(
                f"a detection is of image {detection['image_id']!r} and category "
                f"{detection['category_id']!r}, which the annotations do not have: "
                "map labels to category ids by name, and pass the file of the same pictures"
            )


def _check_groups(names: set[str], base: set[str], novel: set[str], protocol: str) -> None:
    unknown = sorted((base | novel) - names)
    if unknown:
        raise ValueError(
            f"{unknown[:8]} are no categories of the annotations: spell names as in the file"
        )
    if base & novel:
        raise ValueError(f"{sorted(base & novel)[:8]} are base and novel: a class is one of them")
    others = sorted(names - base - novel)
    if protocol == "fvit" and others:
        raise ValueError(
            f"{others[:8]} are neither base nor novel: protocol='fvit' needs a file of the 65 "
            "categories and their pictures; for all 80 categories choose protocol='ovdet'"
        )


def _index(contents: Mapping[str, Any]) -> COCO:
    found = COCO()
    found.dataset = dict(contents)
    found.createIndex()
    return found


def _result(detection: Mapping[str, Any], iou_type: str) -> dict[str, Any]:
    """Copy a detection, for masks without its box: pycocotools would take the box's area."""
    kept = ("image_id", "category_id", "score", "bbox" if iou_type == "bbox" else "segmentation")
    return {name: detection[name] for name in kept}


def _without_detections(
    truth: Mapping[str, Any], names: tuple[str, ...], ids: Sequence[Any]
) -> CategoryPrecision:
    annotated = {a["category_id"] for a in truth["annotations"] if not a.get("iscrowd")}
    at_50 = np.array([0.0 if category in annotated else np.nan for category in ids])
    return CategoryPrecision(names, np.tile(at_50, (10, 1)), at_50, at_50)
