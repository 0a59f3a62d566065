"""Average precision of open-vocabulary detectors on COCO.

Two protocols are in use, and their numbers cannot be compared, so the protocol is part of every
metric's name:

- "fvit": one file with the base and novel categories only, and its pictures (4,836 of val2017).
- "ovdet": all pictures (5,000), so that boxes on pictures without such objects count as wrong. It
  has no figure over base and novel classes together.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clim_eval.metrics.masks import mean_of_known
from clim_eval.metrics.matching import class_precisions
from clim_eval.metrics.tables import ResultTable, TruthTable

PROTOCOLS = ("fvit", "ovdet")
# All protocols, also those without base and novel classes.
ALL_PROTOCOLS = (*PROTOCOLS, "coco", "lvis")
# Largest number of boxes of a class in a picture: for AP over thresholds, and for AP50 and AP75 per
# class.
OF_AVERAGE, OF_THRESHOLD = 100, 1000
# Names of the ranges of areas, without the first one, which is all.
SIZES = ("s", "m", "l")


@dataclass(frozen=True)
class CategoryPrecision:
    """AP of each category: nan where there is no annotation.

    Attributes:
        names: of the K categories, in the order of the file.
        average: (10, K) at IoU 0.50 to 0.95, at most 100 boxes per picture and class for COCO.
        at_50, at_75: (K,) at IoU 0.50 and 0.75, at most 1000 boxes per picture and class for COCO.
        of_size: (3, 10, K), `average` of small, medium and large objects.
    """

    names: tuple[str, ...]
    average: np.ndarray
    at_50: np.ndarray
    at_75: np.ndarray
    of_size: np.ndarray


def category_precision(
    truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], *, iou_type: str = "bbox"
) -> CategoryPrecision:
    """Compute the AP of each category as COCO's own evaluation does.

    Args:
        truth: contents of a COCO annotation file. Crowd annotations are ignored regions.
        detections: COCO results: `image_id`, `category_id`, `score`, and `bbox` (x, y, width,
            height) or `segmentation` (RLE).
        iou_type: "bbox" or "segm".

    Raises:
        ValueError: an unknown IoU type, no category, or a detection that cannot be used, such as
            one of a picture or category that the file does not have.
    """
    table = TruthTable.of(truth, iou_type)
    return precision_of_tables(table, ResultTable.of(detections, table))


def precision_of_tables(truth: TruthTable, results: ResultTable) -> CategoryPrecision:
    """Compute the AP of each category, see `category_precision`."""
    averages, singles = class_precisions(truth, results, (OF_AVERAGE, OF_THRESHOLD))
    return CategoryPrecision(
        truth.names, averages[0], singles[0, 0], singles[0, 5], of_size=averages[1:]
    )


def coco_ap(found: CategoryPrecision) -> dict[str, float]:
    """Average over classes: "AP" over IoU 0.50 to 0.95, "AP50", "AP75", and "APs", "APm", "APl" of
    small, medium and large objects; fractions, nan of none."""
    metrics = {
        "AP": mean_of_known(found.average),
        "AP50": mean_of_known(found.at_50),
        "AP75": mean_of_known(found.at_75),
    }
    for size, average in zip(SIZES, found.of_size, strict=True):
        metrics[f"AP{size}"] = mean_of_known(average)
    return metrics


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
        0.50 to 0.95), where GROUP is "base", "novel" and, for "fvit", "all". Classes without
        annotation do not enter the means; nan if there is none.

    Raises:
        ValueError: an unknown protocol, a name that the file does not have or that is in both
            groups, or categories of neither group under "fvit"; or as `category_precision`.
    """
    names = {str(category["name"]) for category in truth["categories"]}
    check_groups(names, set(base), set(novel), protocol)
    found = category_precision(truth, detections, iou_type=iou_type)
    return group_ap(found, base=base, novel=novel, protocol=protocol)


def group_ap(
    found: CategoryPrecision, *, base: Collection[str], novel: Collection[str], protocol: str
) -> dict[str, float]:
    """Average over base, novel and all classes, see `open_vocabulary_ap`."""
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


def check_groups(names: set[str], base: set[str], novel: set[str], protocol: str) -> None:
    """Refuse groups that do not fit the categories or the protocol.

    Raises:
        ValueError: see `open_vocabulary_ap`.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r} is not known: choose from {', '.join(PROTOCOLS)}")
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
