"""The rules for one box of an annotation file."""

from collections.abc import Sequence
from typing import Any, TypeGuard

from clim_data.annotations.ids import shorten
from clim_data.faults import BrokenSample

Corners = tuple[float, float, float, float]

_NUMBERS = frozenset((int, float))


def check_box(bbox: Any, size: tuple[int, int] | None, name: str = "") -> tuple[Corners, bool]:
    """Check a COCO box [x, y, width, height] in pixels of an image of (height, width).

    Args:
        bbox: what the record has.
        size: None when it is not known; then the box is not clipped.
        name: name of the record, for errors.

    Returns:
        The box as XYXY, clipped to the image, and whether that took more than a pixel of it.

    Raises:
        BrokenSample: it is no box of four finite numbers, has no area, is smaller than a pixel, or
            lies outside the image.
    """
    if not is_four_numbers(bbox):
        detail = f"bbox is {shorten(bbox)}, not [x, y, width, height] in pixels"
        raise BrokenSample("bad box", name, detail)
    x, y, width, height = bbox
    # NaN fails every comparison, infinity and whole numbers without end the last one.
    if not (width > 0 and height > 0 and all(abs(value) < 1e12 for value in bbox)):
        raise BrokenSample("bad box", name, f"bbox {shorten(bbox)} has no area")
    if width < 1 and height < 1:
        raise BrokenSample("bad box", name, f"bbox {shorten(bbox)} is less than a pixel")

    left, top, right, bottom = float(x), float(y), float(x) + width, float(y) + height
    if size is None:
        return (left, top, right, bottom), False
    limit_y, limit_x = size
    if left >= limit_x or top >= limit_y or right <= 0 or bottom <= 0:
        detail = f"bbox {shorten(bbox)} in {limit_x} x {limit_y} pixels"
        raise BrokenSample("box outside the image", name, detail)
    if left >= 0 and top >= 0 and right <= limit_x and bottom <= limit_y:
        return (left, top, right, bottom), False

    inside = max(left, 0.0), max(top, 0.0), min(right, float(limit_x)), min(bottom, float(limit_y))
    lost = max(-left, -top, right - limit_x, bottom - limit_y)
    return inside, lost > 1


def box_inside(bbox: Any, size: tuple[int, int] | None) -> Corners | None:
    """Return the result of `check_box` for a valid box inside its image, else None.

    Nearly all boxes are: this takes a fraction of the time.
    """
    if type(bbox) is not list or len(bbox) != 4 or size is None:
        return None
    x, y, width, height = bbox
    if not (type(x) in _NUMBERS and type(y) in _NUMBERS):
        return None
    if not (type(width) in _NUMBERS and type(height) in _NUMBERS):
        return None
    # A width above 1: boxes that may be fractions of the image get the full check. NaN fails each
    # comparison, and whole numbers without end fail before they are added.
    if not (0 <= x < size[1] and 0 <= y < size[0] and 1 < width <= size[1]):
        return None
    if not 0 < height <= size[0]:
        return None
    right, bottom = x + width, y + height
    if right <= size[1] and bottom <= size[0]:
        return float(x), float(y), float(right), float(bottom)
    return None


def is_usable_box(bbox: Any, size: tuple[int, int] | None) -> bool:
    """Tell whether `check_box` accepts a box."""
    try:
        return box_inside(bbox, size) is not None or bool(check_box(bbox, size))
    except BrokenSample:
        return False


def is_four_numbers(bbox: Any) -> TypeGuard[Sequence[float]]:
    """Tell whether a value is a list of four numbers; texts and truth values are none."""
    if not isinstance(bbox, list | tuple) or len(bbox) != 4:
        return False
    return _NUMBERS.issuperset(map(type, bbox))
