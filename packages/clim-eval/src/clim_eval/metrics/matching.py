"""Matching of detections to annotations, and average precision, class by class.

The rules are those of COCO, which LVIS shares. Detections of an image take turns by falling score.
Each takes the free annotation with the largest sufficient overlap. One that counts comes before an
ignored one, and the later of two equal ones before the earlier.

Letters: D detections, G annotations of a class in all images, E pairs of them that overlap,
A = 4 ranges of areas, T = 10 IoU thresholds, K classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from pycocotools import mask as rle_masks

from clim_eval.metrics.tables import Objects, ResultTable, TruthTable, to_rle

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
# All, small, medium, large, in square pixels.
AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]], dtype=float)
# Equal masks overlap by a little less than 1.
_LIMITS = np.minimum(THRESHOLDS, 1 - 1e-10)


@dataclass(frozen=True)
class _Class:
    """One class.

    Attributes:
        found: rows of its D detections, by image and falling score.
        true: rows of its G annotations, by image.
        ranks: (D,), place of each detection in its image.
        outside: bool (A, D), detections that do not count unless they find something.
        ignored: bool (A, G).
    """

    found: np.ndarray
    true: np.ndarray
    ranks: np.ndarray
    outside: np.ndarray
    ignored: np.ndarray


@dataclass(frozen=True)
class _Pairs:
    """Detections and annotations that overlap enough for the lowest threshold.

    Attributes:
        found, true: (E,), places in the D and G, by detection and then in the order of the file.
        overlaps: (E,) IoU.
    """

    found: np.ndarray
    true: np.ndarray
    overlaps: np.ndarray


def class_precisions(
    truth: TruthTable,
    results: ResultTable,
    at_most: Sequence[int | None],
    *,
    unjudged: np.ndarray | None = None,
) -> np.ndarray:
    """Compute the average precision of each class.

    Args:
        truth, results: annotations and detections.
        at_most: numbers of detections of a class in an image that count, the best ones; None counts
            all.
        unjudged: bool (D of all classes,), detections that do not count unless they find something.

    Returns:
        (len(at_most), A, T, K), nan where a class has no annotation that counts.
    """
    shape = (len(at_most), len(AREAS), len(THRESHOLDS), len(truth.names))
    precision = np.full(shape, np.nan)
    for label, one in _classes(truth, results, unjudged):
        hit, ignored = _match(one, _overlaps(one, truth, results), truth.crowd[one.true])
        count = (~one.ignored).sum(axis=1)
        scores = results.scores[one.found]
        for number, most in enumerate(at_most):
            counted = np.arange(len(scores)) if most is None else np.flatnonzero(one.ranks < most)
            order = counted[np.argsort(-scores[counted], kind="stable")]
            precision[number, :, :, label] = _precision(hit[..., order], ignored[..., order], count)
    return precision


def _classes(
    truth: TruthTable, results: ResultTable, unjudged: np.ndarray | None
) -> Iterator[tuple[int, _Class]]:
    """Yield each class that has an annotation, with its label."""
    found, true = results.objects, truth.objects
    by_class = np.lexsort((-results.scores, found.images, found.labels))
    true_by_class = np.lexsort((true.images, true.labels))
    labels = np.arange(len(truth.names) + 1)
    starts = np.searchsorted(found.labels[by_class], labels)
    true_starts = np.searchsorted(true.labels[true_by_class], labels)
    for label in np.flatnonzero(np.diff(true_starts)).tolist():
        rows = by_class[starts[label] : starts[label + 1]]
        true_rows = true_by_class[true_starts[label] : true_starts[label + 1]]
        outside = _out_of_range(found.areas[rows])
        if unjudged is not None:
            outside |= unjudged[rows]
        ignored = _out_of_range(true.areas[true_rows]) | truth.ignored[true_rows]
        yield label, _Class(rows, true_rows, ranks_in(found.images[rows]), outside, ignored)


def ranks_in(groups: np.ndarray) -> np.ndarray:
    """Return the place of each item in its group: 0, 1, ...; items of a group are neighbours."""
    is_first = np.ones(len(groups), dtype=bool)
    is_first[1:] = groups[1:] != groups[:-1]
    places = np.arange(len(groups))
    return places - np.maximum.accumulate(np.where(is_first, places, 0))


def _out_of_range(areas: np.ndarray) -> np.ndarray:
    return (areas < AREAS[:, :1]) | (areas > AREAS[:, 1:])


def _overlaps(one: _Class, truth: TruthTable, results: ResultTable) -> _Pairs:
    """Compare the detections with the annotations of their image."""
    images = results.objects.images[one.found]
    true_images = truth.objects.images[one.true]
    first = np.searchsorted(true_images, images, side="left")
    counts = np.searchsorted(true_images, images, side="right") - first
    found = np.repeat(np.arange(len(images)), counts)
    true = np.arange(len(found)) + np.repeat(first - (counts.cumsum() - counts), counts)

    rows, true_rows = one.found[found], one.true[true]
    if truth.iou_type == "bbox":
        overlaps = _box_overlaps(
            results.objects.boxes[rows], truth.objects.boxes[true_rows], truth.crowd[true_rows]
        )
    else:
        overlaps = _mask_overlaps(images, one, truth, results.objects)
    close = np.flatnonzero(overlaps >= _LIMITS[0])
    return _Pairs(found[close], true[close], overlaps[close])


def _box_overlaps(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Compute the IoU of pairs of boxes XYWH; a crowd is shared by the area of the first one."""
    ends = np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:])
    sides = np.maximum(ends - np.maximum(boxes[:, :2], others[:, :2]), 0)
    shared = sides[:, 0] * sides[:, 1]
    area, other = boxes[:, 2] * boxes[:, 3], others[:, 2] * others[:, 3]
    union = np.where(crowd, area, area + other - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def _mask_overlaps(
    images: np.ndarray, one: _Class, truth: TruthTable, found: Objects
) -> np.ndarray:
    """Compute the IoU of all masks of a class with those of the same image, image by image."""
    assert found.masks is not None
    assert truth.objects.masks is not None
    true_images = truth.objects.images[one.true]
    parts = [np.zeros(0)]
    for image in np.intersect1d(images, true_images).tolist():
        height, width = truth.sizes[image].tolist()
        rows = one.found[slice(*np.searchsorted(images, [image, image + 1]))]
        true_rows = one.true[slice(*np.searchsorted(true_images, [image, image + 1]))]
        masks = [to_rle(found.masks[row], (height, width)) for row in rows.tolist()]
        true_masks = [truth.objects.masks[row] for row in true_rows.tolist()]
        true = [to_rle(mask, (height, width)) for mask in true_masks]
        crowd = truth.crowd[true_rows].astype(np.uint8).tolist()
        parts.append(np.asarray(rle_masks.iou(masks, true, crowd)).ravel())
    return np.concatenate(parts)


def _match(one: _Class, pairs: _Pairs, crowd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Match the detections of all images rank by rank: the first ones of each, then the second.

    Detections without an overlap are skipped.

    Returns:
        Detections that found something, and those that do not count: bool (A, T, D).
    """
    shape = (len(AREAS), len(THRESHOLDS), len(one.found))
    hit, on_ignored = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    free = np.ones((*shape[:2], len(one.true)), dtype=bool)

    rows, first, counts = np.unique(pairs.found, return_index=True, return_counts=True)
    # The first detection of an image has rank 0.
    turns = ranks_in(np.cumsum(one.ranks == 0)[rows])
    order = np.argsort(turns, kind="stable")
    bounds = np.searchsorted(turns[order], np.arange(turns.max(initial=-1) + 2))
    for start, end in pairwise(bounds.tolist()):
        here = order[start:end]
        taken, chosen = _take(pairs, first[here], counts[here], free, one.ignored)
        hit[..., rows[here]] = taken
        at = np.nonzero(taken)
        best = chosen[at]
        free[at[0], at[1], best] = crowd[best]
        on_ignored[at[0], at[1], rows[here][at[2]]] = one.ignored[at[0], best]
    return hit, on_ignored | (~hit & one.outside[:, None])


def _take(
    pairs: _Pairs, first: np.ndarray, counts: np.ndarray, free: np.ndarray, ignored: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the annotation that each of P detections takes, of different images.

    Args:
        pairs: all overlaps.
        first, counts: (P,), where the pairs of each detection begin, and how many they are.
        free: bool (A, T, G). ignored: bool (A, G).

    Returns:
        Whether it takes one, bool (A, T, P), and which one (A, T, P).
    """
    columns = np.arange(counts.max())
    is_pair = columns < counts[:, None]
    places = np.where(is_pair, first[:, None] + columns, 0)
    true = pairs.true[places]  # (P, pairs of one)
    overlaps = np.where(is_pair, pairs.overlaps[places], -1.0)

    allowed = free[:, :, true] & (overlaps >= _LIMITS[:, None, None])
    is_ignored = ignored[:, None, true]
    best, taken = _largest(allowed & ~is_ignored, overlaps)
    if is_ignored.any():
        other, takes_other = _largest(allowed & is_ignored, overlaps)
        best, taken = np.where(taken, best, other), taken | takes_other
    return taken, true[np.arange(len(true)), best]


def _largest(allowed: np.ndarray, overlaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the last of the largest overlaps that are allowed, and whether there is one."""
    keys = np.where(allowed, overlaps, -1.0)
    best = keys.shape[-1] - 1 - keys[..., ::-1].argmax(axis=-1)
    return best, np.asarray(allowed.any(axis=-1))


def _precision(hit: np.ndarray, ignored: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Average the precision over 101 recalls: (A, T), nan where nothing counts.

    Args:
        hit, ignored: bool (A, T, D), by falling score.
        count: (A,), how many annotations count.
    """
    found = np.full(hit.shape[:2], np.nan)
    for area in np.flatnonzero(count).tolist():
        right = (hit[area] & ~ignored[area]).cumsum(axis=-1)  # (T, D)
        wrong = (~hit[area] & ~ignored[area]).cumsum(axis=-1)
        recall = right / count[area]
        precision = right / (right + wrong + np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], axis=-1)[:, ::-1]
        precision = np.pad(precision, ((0, 0), (0, 1)))
        for threshold in range(len(THRESHOLDS)):
            first = np.searchsorted(recall[threshold], RECALLS, side="left")
            found[area, threshold] = precision[threshold, first].mean()
    return found
