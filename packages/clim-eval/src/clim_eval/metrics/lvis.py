"""Average precision on LVIS, whose pictures are annotated for some classes only.

A class is judged on a picture where it is annotated, or where the file says that it is not there
(`neg_category_ids`). Where annotations are not exhaustive, other detections are ignored.

Letters: N detections, K classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from clim_eval.metrics.detection import CategoryPrecision, coco_ap
from clim_eval.metrics.masks import mean_of_known
from clim_eval.metrics.matching import class_precisions, ranks_in
from clim_eval.metrics.tables import Objects, ResultTable, TruthTable

# Frequencies of categories: rare, common, frequent.
FREQUENCIES = ("r", "c", "f")
# Detections that count: of each picture over all classes, or of each class over all pictures.
OF_PICTURE, OF_CLASS = 300, 10_000


def lvis_ap(
    truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    *,
    iou_type: str = "segm",
    fixed: bool = False,
) -> dict[str, float]:
    """Compute AP of all, rare, common and frequent classes.

    Args:
        truth: contents of an LVIS annotation file.
        detections: COCO results: `image_id`, `category_id`, `score`, `bbox` (x, y, width, height)
            and, for masks, `segmentation` (RLE).
        iou_type: "segm" or "bbox".
        fixed: False counts the best 300 detections of a picture, as LVIS' own evaluation does. True
            counts the best 10,000 of each class instead ("fixed AP", arXiv 2102.01066).

    Returns:
        Fractions over IoU 0.50 to 0.95: "AP", "APs", "APm", "APl" (sizes of objects), "APr", "APc",
        "APf" (frequencies), "AP50", "AP75", and at IoU 0.50 "AP50_base" (common and frequent),
        "AP50_novel" (rare). Names begin with the IoU type, "segm.APr", and with "fixed." in front
        of it where `fixed`. Classes without annotation do not count; nan of none.

    Raises:
        ValueError: an unknown IoU type, no category, or a detection that cannot be used, such as
            one of a picture or category that the file does not have.
    """
    table = TruthTable.of(truth, iou_type, crowds=False)
    results = ResultTable.of(detections, table, box_areas=True)
    found = lvis_precision(truth, table, results, fixed=fixed)
    prefix = f"fixed.{iou_type}." if fixed else f"{iou_type}."
    metrics = frequency_ap(found, [category["frequency"] for category in truth["categories"]])
    return {prefix + name: value for name, value in metrics.items()}


def lvis_precision(
    truth: Mapping[str, Any], table: TruthTable, results: ResultTable, *, fixed: bool = False
) -> CategoryPrecision:
    """Compute the AP of each category, see `lvis_ap`.

    Args:
        truth: contents of an LVIS annotation file.
        table: of the same file, without crowds.
        results: detections.
        fixed: as in `lvis_ap`.
    """
    absent = _codes(truth["images"], "neg_category_ids", table)
    annotated = _code(table.objects, table)
    judged = np.isin(_code(results.objects, table), np.concatenate([absent, annotated]))

    groups = results.objects.labels if fixed else results.objects.images
    counted = _best_of(groups, results.scores, OF_CLASS if fixed else OF_PICTURE) & judged
    results = results.take(np.flatnonzero(counted))
    unjudged = np.isin(
        _code(results.objects, table),
        _codes(truth["images"], "not_exhaustive_category_ids", table),
    )
    averages = class_precisions(table, results, (None,), unjudged=unjudged)[0]
    return CategoryPrecision(
        table.names, averages[0], averages[0, 0], averages[0, 5], of_size=averages[1:]
    )


def frequency_ap(found: CategoryPrecision, frequencies: Sequence[str]) -> dict[str, float]:
    """Average over all classes and over those of each frequency, see `lvis_ap`."""
    metrics = coco_ap(found)
    kinds = np.array(frequencies)
    for frequency in FREQUENCIES:
        metrics[f"AP{frequency}"] = mean_of_known(found.average[:, kinds == frequency])
    metrics["AP50_novel"] = mean_of_known(found.at_50[kinds == "r"])
    metrics["AP50_base"] = mean_of_known(found.at_50[kinds != "r"])
    return metrics


def _code(objects: Objects, table: TruthTable) -> np.ndarray:
    """Number the pairs of a picture and a class."""
    return objects.images * len(table.names) + objects.labels


def _codes(images: Iterable[Mapping[str, Any]], field: str, table: TruthTable) -> np.ndarray:
    """Number the classes that a list of each picture names."""
    found = [
        table.row_of[image["id"]] * len(table.names) + table.label_of[category]
        for image in images
        for category in image[field]
        if category in table.label_of
    ]
    return np.array(found, dtype=np.int64)


def _best_of(groups: np.ndarray, scores: np.ndarray, most: int) -> np.ndarray:
    """Tell which are the best detections of each group: bool (N,)."""
    order = np.lexsort((-scores, groups))
    counted = np.zeros(len(groups), dtype=bool)
    counted[order] = ranks_in(groups[order]) < most
    return counted
