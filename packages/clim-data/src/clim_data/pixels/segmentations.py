"""COCO segmentations: polygons and run lengths, checked before any of them is drawn.

pycocotools does not check its input: a coordinate of 1e9 ends the process, and runs that are too
short leave uninitialised memory. So all rules are here, and only valid polygons reach its code. Run
lengths are decoded by this module itself.
"""

import math
from typing import Any

import numpy as np

from clim_data.faults import BrokenSample
from clim_data.pixels.run_texts import BAD, runs_of_text

EMPTY = "empty segmentation"

_NUMBERS = frozenset((int, float))


def check_polygons(
    polygons: list, size: tuple[int, int], name: str
) -> tuple[list[list[float]], int]:
    """Check polygons [[x, y, x, y, ...], ...] of an image of (height, width).

    Polygons of one or two points have no area. Next to others they are dropped.

    Returns:
        The polygons that have an area, and the number of dropped ones.

    Raises:
        BrokenSample: there is no polygon with an area, a value is no finite number, a list is of
            odd length, or a point is more than one image size outside the image.
    """
    if not polygons:
        raise BrokenSample(EMPTY, name, "no polygon")

    # Drawing takes memory for every pixel of every edge. No outline is longer than this.
    height, width = size
    longest = 4 * height * width + 64 * (height + width)
    if sum(_plain_length(polygon, size) for polygon in polygons) <= longest:
        return polygons, 0

    sound = []
    length = 0.0
    for polygon in polygons:
        points = _points(polygon, size, name)
        if len(points) < 3:
            continue
        sound.append(polygon)
        steps = np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1)
        length += float(steps.sum())

    if not sound:
        numbers = max(len(polygon) for polygon in polygons)
        raise BrokenSample(BAD, name, f"a polygon of {numbers} numbers, at least 6")
    if length > longest:
        raise BrokenSample(BAD, name, f"an outline of {length:.3g} pixels in {width} x {height}")
    return sound, len(polygons) - len(sound)


def _plain_length(polygon: Any, size: tuple[int, int]) -> float:
    """Return an upper bound of the outline of a polygon that is certainly valid, else infinity.

    Nearly all polygons are valid, and this takes a fraction of the time of the full check.
    """
    if type(polygon) is not list or len(polygon) < 6 or len(polygon) % 2:
        return math.inf
    if not _NUMBERS.issuperset(map(type, polygon)):
        return math.inf

    low, high, side = min(polygon), max(polygon), min(size)
    # A NaN makes `low` and `high` meaningless, and the sum no finite number.
    if not (-side <= low and high <= 2 * side and math.isfinite(sum(polygon))):
        return math.inf
    # No edge is longer than the extent of all coordinates, x and y together.
    return len(polygon) // 2 * (high - low)


def _points(polygon: Any, size: tuple[int, int], name: str) -> np.ndarray:
    """Return the points (P, 2) of a polygon, x first; BrokenSample as `check_polygons` says."""
    if not isinstance(polygon, list):
        raise BrokenSample(BAD, name, f"{_short(polygon)} is no list of coordinates")
    if not _NUMBERS.issuperset(map(type, polygon)):
        strange = next(value for value in polygon if type(value) not in _NUMBERS)
        raise BrokenSample(BAD, name, f"coordinate {_short(strange)} is no number")
    if len(polygon) % 2:
        raise BrokenSample(BAD, name, f"a polygon of {len(polygon)} numbers, an odd one")

    try:
        values = np.array(polygon, dtype=np.float64)
    except OverflowError:  # whole numbers of any length are valid json
        raise BrokenSample(BAD, name, "a coordinate of more than 300 digits") from None
    points = values.reshape(-1, 2)

    finite = np.isfinite(values)
    if not finite.all():
        raise BrokenSample(BAD, name, f"coordinate {values[~finite][0]}")
    limits = np.array([size[1], size[0]], dtype=np.float64)
    outside = (points < -limits) | (points > 2 * limits)
    if outside.any():
        detail = f"coordinate {points[outside][0]:g} in an image of {size[1]} x {size[0]}"
        raise BrokenSample(BAD, name, detail)
    return points


def check_runs(rle: dict, size: tuple[int, int], name: str) -> np.ndarray:
    """Check run lengths {"size": [height, width], "counts": list or text}.

    Returns:
        int64 (n,): lengths of the runs, alternately unset and set, column by column.

    Raises:
        BrokenSample: the size is not (height, width), a run is no whole number of at least 0, or
            the runs do not add up to the image.
    """
    stated = rle.get("size")
    if not isinstance(stated, list | tuple) or list(stated) != list(size):
        shown = f"{_short(stated)} is not the image's {list(size)}"
        raise BrokenSample("size mismatch", name, f"the segmentation's size {shown}")

    counts = rle.get("counts")
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", "replace")
    if isinstance(counts, str):
        runs = runs_of_text(counts, name)
    elif isinstance(counts, list):
        runs = _whole_runs(counts, name)
    else:
        raise BrokenSample(BAD, name, f'"counts" is {_short(counts)}, neither list nor text')

    pixels = size[0] * size[1]
    if (runs < 0).any() or (runs > pixels).any():
        wrong = int(runs[(runs < 0) | (runs > pixels)][0])
        raise BrokenSample(BAD, name, f"a run of {wrong} in {pixels} pixels")
    if (total := int(runs.sum())) != pixels:
        raise BrokenSample(BAD, name, f"runs add up to {total} of {pixels} pixels")
    return runs


def _whole_runs(counts: list, name: str) -> np.ndarray:
    for count in counts:
        if type(count) is int or (type(count) is float and count.is_integer()):
            continue
        raise BrokenSample(BAD, name, f"run {_short(count)} is no whole number")
    try:
        return np.array(counts, dtype=np.int64)
    except OverflowError:
        raise BrokenSample(BAD, name, "a run of more than 2**63 pixels") from None


def check_segmentation(segmentation: Any, size: tuple[int, int], name: str) -> int:
    """Check polygons or run lengths of an image of (height, width).

    Returns:
        The number of polygons without an area, which do not count.

    Raises:
        BrokenSample: see `check_polygons` and `check_runs`; or the segmentation is neither.
    """
    if segmentation is None or segmentation == []:
        raise BrokenSample(EMPTY, name, "no polygon")
    if isinstance(segmentation, dict):
        check_runs(segmentation, size, name)
        return 0
    if not isinstance(segmentation, list):
        detail = f"{_short(segmentation)} is neither polygons nor run lengths"
        raise BrokenSample(BAD, name, detail)
    return check_polygons(segmentation, size, name)[1]


def usable_segmentation(
    segmentation: Any, size: tuple[int, int], name: str
) -> tuple[list | dict, int]:
    """Return run lengths unchanged, or the polygons that have an area, and the number of those
    without.

    Raises:
        BrokenSample: see `check_segmentation`.
    """
    dropped = check_segmentation(segmentation, size, name)
    if dropped:
        return check_polygons(segmentation, size, name)
    return segmentation, 0


def compress_segmentation(
    segmentation: Any, size: tuple[int, int], name: str = "segmentation"
) -> tuple[bytes, int]:
    """Draw COCO polygons or run lengths of an image of (height, width) as COCO's text of runs.

    Returns:
        The text, which `decode_segmentation` and `mask_window` read, and the number of polygons
        without an area, which do not count.

    Raises:
        BrokenSample: see `check_segmentation`; or no pixel is set.
    """
    usable, dropped = usable_segmentation(segmentation, size, name)
    height, width = size
    from pycocotools import mask as coco_mask

    if isinstance(usable, list):
        text = coco_mask.merge(coco_mask.frPyObjects(usable, height, width))["counts"]
    elif isinstance(usable["counts"], list):
        text = coco_mask.frPyObjects(usable, height, width)["counts"]
    else:
        text = usable["counts"]
        text = text.encode("ascii") if isinstance(text, str) else text

    if not coco_mask.area({"size": [height, width], "counts": text}):
        raise BrokenSample(EMPTY, name, "no pixel is set")
    return text, dropped


def mask_window(text: bytes, height: int) -> tuple[int, int, np.ndarray]:
    """Return the window of a mask around its set pixels; only the columns of it are decoded.

    Args:
        text: of `compress_segmentation`.
        height: of the image.

    Returns:
        left, top, and bool (h, w).
    """
    runs = runs_of_text(text.decode("ascii"), "mask")
    ends = np.cumsum(runs)
    filled = np.flatnonzero(runs[1::2]) * 2 + 1
    first = int((ends - runs)[filled[0]]) // height
    last = (int(ends[filled[-1]]) - 1) // height + 1

    # Runs lie column by column, so that some columns are a range of pixels.
    inside = ends.clip(first * height, last * height) - first * height
    columns = _mask_of_runs(np.diff(inside, prepend=0), height, last - first)
    rows = np.flatnonzero(columns.any(axis=1))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return first, top, columns[top:bottom]


def decode_segmentation(
    segmentation: Any, height: int, width: int, name: str = "segmentation"
) -> np.ndarray:
    """Draw COCO polygons or run lengths as a mask: bool (height, width).

    Args:
        segmentation: a list of polygons, or run lengths as a list or as COCO's text.
        height, width: size of the image in pixels.
        name: what to call the annotation in an error.

    Raises:
        BrokenSample: the segmentation is malformed or of another size.
    """
    size = height, width
    if isinstance(segmentation, dict):
        return _mask_of_runs(check_runs(segmentation, size, name), height, width)
    if not isinstance(segmentation, list):
        detail = f"{_short(segmentation)} is neither polygons nor run lengths"
        raise BrokenSample(BAD, name, detail)

    polygons, _ = check_polygons(segmentation, size, name)
    from pycocotools import mask as coco_mask

    code = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return _mask_of_runs(runs_of_text(code["counts"].decode(), name), height, width)


def _mask_of_runs(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the mask (height, width) of runs that lie column by column, the first one unset."""
    is_set = np.arange(len(runs)) % 2 == 1
    return np.repeat(is_set, runs).reshape(width, height).T


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
