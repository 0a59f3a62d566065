"""Average precision on LVIS, whose pictures are annotated for some classes only.

A class is judged on a picture where it is annotated, or where the file says that it is not there
(`neg_category_ids`). Where annotations are not exhaustive, other detections are ignored.

Letters: P pairs of a picture and a class, D detections and G annotations of a pair, A = 4 ranges of
areas, T = 10 IoU thresholds, K classes.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as rle_masks

from clim_eval.metrics.detection import check_iou_type
from clim_eval.metrics.masks import mean_of_known

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
# All, small, medium, large, in square pixels.
AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]], dtype=float)
SIZES = ("", "s", "m", "l")
# Frequencies of categories: rare, common, frequent.
FREQUENCIES = ("r", "c", "f")
# Detections that count: of each picture over all classes, or of each class over all pictures.
OF_PICTURE, OF_CLASS = 300, 10_000
# Rows of pairs that are matched at once: bounds the memory.
PAIRS_AT_ONCE = 2048


@dataclass(frozen=True)
class _Pair:
    """Detections and annotations of one class in one picture.

    Attributes:
        scores: (D,) falling.
        overlaps: (D, G).
        outside: bool (A, D), detections whose area is out of range, or that cannot be judged.
        ignored: bool (A, G).
    """

    scores: np.ndarray
    overlaps: np.ndarray
    outside: np.ndarray
    ignored: np.ndarray


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
        ValueError: an unknown IoU type, or a detection of a picture that the file does not have.
    """
    check_iou_type(iou_type)
    images = {image["id"]: image for image in truth["images"]}
    for detection in detections:
        if detection["image_id"] not in images:
            raise ValueError(
                f"a detection is of image {detection['image_id']!r}, which the annotations do not "
                "have: pass the file of the same pictures"
            )

    field, most = ("category_id", OF_CLASS) if fixed else ("image_id", OF_PICTURE)
    chosen = _best_of(detections, field, most)
    pairs = _pairs(images, truth["annotations"], chosen, iou_type)
    precision = np.full((len(AREAS), len(THRESHOLDS), len(truth["categories"])), np.nan)
    for number, category in enumerate(truth["categories"]):
        if pairs[category["id"]]:
            precision[:, :, number] = _class_precision(pairs[category["id"]])
    prefix = f"fixed.{iou_type}." if fixed else f"{iou_type}."
    frequencies = np.array([category["frequency"] for category in truth["categories"]])
    return {prefix + name: value for name, value in _summary(precision, frequencies).items()}


def _summary(precision: np.ndarray, frequencies: np.ndarray) -> dict[str, float]:
    """Average (A, T, K) in the usual ways."""
    found = {f"AP{size}": mean_of_known(precision[i]) for i, size in enumerate(SIZES)}
    found["AP50"] = mean_of_known(precision[0, 0])
    found["AP75"] = mean_of_known(precision[0, 5])
    for frequency in FREQUENCIES:
        found[f"AP{frequency}"] = mean_of_known(precision[0][:, frequencies == frequency])
    found["AP50_novel"] = mean_of_known(precision[0, 0, frequencies == "r"])
    found["AP50_base"] = mean_of_known(precision[0, 0, frequencies != "r"])
    return found


def _best_of(
    detections: Sequence[Mapping[str, Any]], field: str, most: int
) -> list[Mapping[str, Any]]:
    """Choose the best detections of each picture, or of each class, by the field that names it."""
    groups = defaultdict(list)
    for detection in detections:
        groups[detection[field]].append(detection)

    found = []
    for group in groups.values():
        found += sorted(group, key=lambda one: one["score"], reverse=True)[:most]
    return found


def _pairs(
    images: Mapping[Any, Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    detections: Sequence[Mapping[str, Any]],
    iou_type: str,
) -> dict[Any, list[_Pair]]:
    """Group by class and picture, where the class can be judged."""
    true, found = defaultdict(list), defaultdict(list)
    for annotation in annotations:
        true[annotation["category_id"], annotation["image_id"]].append(annotation)

    for detection in detections:
        category, image = detection["category_id"], detection["image_id"]
        is_absent = category in images[image]["neg_category_ids"]
        if is_absent or (category, image) in true:
            found[category, image].append(detection)

    pairs = defaultdict(list)
    # The order of the pictures decides between detections of one score.
    for key in sorted(true.keys() | found.keys(), key=lambda key: (str(key[0]), key[1])):
        category, image = key
        pairs[category].append(
            _pair(images[image], category, true[key], found[key], iou_type == "segm")
        )
    return pairs


def _pair(
    image: Mapping[str, Any],
    category: Any,
    annotations: Sequence[Mapping[str, Any]],
    detections: Sequence[Mapping[str, Any]],
    use_masks: bool,
) -> _Pair:
    scores = np.array([one["score"] for one in detections], dtype=float)
    order = np.argsort(-scores, kind="mergesort")
    detections = [detections[i] for i in order]

    overlaps = np.zeros((len(detections), len(annotations)))
    if overlaps.size:
        found = [_shape(one, image, use_masks) for one in detections]
        true = [_shape(one, image, use_masks) for one in annotations]
        overlaps = np.asarray(rle_masks.iou(found, true, [0] * len(true)))

    areas = np.array([_area(one) for one in detections])
    outside = (areas < AREAS[:, :1]) | (areas > AREAS[:, 1:])
    if category in image["not_exhaustive_category_ids"]:
        outside = np.ones_like(outside)
    true_areas = np.array([one["area"] for one in annotations], dtype=float)
    ignored = (true_areas < AREAS[:, :1]) | (true_areas > AREAS[:, 1:])
    ignored |= np.array([bool(one.get("ignore", 0)) for one in annotations], dtype=bool)
    return _Pair(scores[order], overlaps, outside, ignored)


def _area(detection: Mapping[str, Any]) -> float:
    """Return the area of the box where there is one, as LVIS' own evaluation does."""
    if "bbox" in detection:
        return float(detection["bbox"][2] * detection["bbox"][3])
    return float(rle_masks.area(detection["segmentation"]))


def _shape(item: Mapping[str, Any], image: Mapping[str, Any], use_masks: bool) -> Any:
    """Return a box, or a mask as RLE."""
    if not use_masks:
        return [float(value) for value in item["bbox"]]
    segmentation = item["segmentation"]
    height, width = image["height"], image["width"]
    if isinstance(segmentation, list):
        return rle_masks.merge(rle_masks.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return rle_masks.frPyObjects(segmentation, height, width)
    return segmentation


def _class_precision(pairs: Sequence[_Pair]) -> np.ndarray:
    """Compute the AP of one class: (A, T), nan where nothing counts."""
    scores = np.concatenate([pair.scores for pair in pairs])
    order = np.argsort(-scores, kind="mergesort")
    hit, ignored = (
        np.concatenate(parts, axis=-1)[..., order] for parts in zip(*_match(pairs), strict=True)
    )
    right = (hit & ~ignored).cumsum(-1)  # (A, T, all D)
    wrong = (~hit & ~ignored).cumsum(-1)
    number = np.sum([(~pair.ignored).sum(-1) for pair in pairs], axis=0)  # (A,)

    found = np.full(right.shape[:2], np.nan)
    for area, count in enumerate(number):
        if not count:
            continue
        recall = right[area] / count
        precision = right[area] / (right[area] + wrong[area] + np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], axis=-1)[:, ::-1]
        precision = np.pad(precision, ((0, 0), (0, 1)))
        for threshold in range(len(THRESHOLDS)):
            first = np.searchsorted(recall[threshold], RECALLS, side="left")
            found[area, threshold] = precision[threshold, first].mean()
    return found


def _match(pairs: Sequence[_Pair]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Match the detections of all pairs: for each, hits and ignored ones, bool (A, T, D)."""
    found = []
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        found += _match_some(pairs[start : start + PAIRS_AT_ONCE])
    return found


def _match_some(pairs: Sequence[_Pair]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Match rank by rank: the best detections of all pairs first, then the second ones.

    A detection takes the annotation that it overlaps most among those still free, one that counts
    before an ignored one, and the later of two that are equal.
    """
    most = max(pair.overlaps.shape[1] for pair in pairs)
    deepest = max(pair.overlaps.shape[0] for pair in pairs)
    overlaps = np.full((len(pairs), deepest, most), -1.0)
    ignored = np.zeros((len(pairs), len(AREAS), most), dtype=bool)
    for i, pair in enumerate(pairs):
        rows, columns = pair.overlaps.shape
        overlaps[i, :rows, :columns] = pair.overlaps
        ignored[i, :, :columns] = pair.ignored

    shape = (len(pairs), len(AREAS), len(THRESHOLDS))
    free = np.ones((*shape, most), dtype=bool)
    hit, on_ignored = (np.zeros((*shape, deepest), dtype=bool) for _ in range(2))
    limits = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    for rank in range(deepest if most else 0):
        here = overlaps[:, rank, None, None, :]  # (P, 1, 1, G)
        allowed = free & (here >= limits)
        keys = np.where(allowed, here + 2.0 * ~ignored[:, :, None], -1.0)
        best = most - 1 - keys[..., ::-1].argmax(-1)[..., None]
        taken = np.take_along_axis(allowed, best, -1)
        hit[..., rank] = taken[..., 0]
        of_ignored = np.take_along_axis(np.broadcast_to(ignored[:, :, None], free.shape), best, -1)
        on_ignored[..., rank] = (taken & of_ignored)[..., 0]
        np.put_along_axis(free, best, np.take_along_axis(free, best, -1) & ~taken, -1)

    found = []
    for i, pair in enumerate(pairs):
        count = len(pair.scores)
        hits = hit[i, ..., :count]
        unjudged = on_ignored[i, ..., :count] | (~hits & pair.outside[:, None])
        found.append((hits, unjudged))
    return found
