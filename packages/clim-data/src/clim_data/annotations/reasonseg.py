"""Questions and outlines of ReasonSeg (arXiv 2308.00692), one json next to each image."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clim_data.annotations.ids import shorten
from clim_data.faults import BrokenSample
from clim_data.files.names import is_utf8

BAD = "bad question"

Polygon = list[tuple[float, float]]


@dataclass(frozen=True)
class ReasonSegRecord:
    """The questions about an image, and the outlines of the answer.

    queries: texts. is_sentence: whether they are long questions, and not short phrases. shapes:
    (label, polygon) of points (x, y) in pixels; label 1 is the target, 255 is excluded from scores.
    """

    queries: tuple[str, ...]
    is_sentence: bool
    shapes: tuple[tuple[int, Polygon], ...]

    @classmethod
    def read(cls, path: str | Path) -> "ReasonSegRecord":
        """Read the json of one image. Shapes whose label has "flag" in it are no outlines.

        Raises:
            BrokenSample: it is no such file, or has no query or no outline.
        """
        path = Path(path)
        try:
            record = json.loads(_decode(path.read_bytes()))
        except (OSError, ValueError, RecursionError) as fault:
            raise BrokenSample("bad json", path.name, str(fault)) from None
        if not isinstance(record, dict):
            raise BrokenSample(BAD, path.name, f"{shorten(record)} is no object")

        texts = record.get("text")
        texts = [texts] if isinstance(texts, str) else texts
        queries = (
            [t.strip() for t in texts if isinstance(t, str)] if isinstance(texts, list) else []
        )
        queries = [query for query in queries if query and is_utf8(query)]
        if not queries:
            raise BrokenSample(BAD, path.name, f"text is {shorten(texts)}, no list of queries")
        shapes = record.get("shapes")
        if not isinstance(shapes, list):
            raise BrokenSample(BAD, path.name, f"shapes is {shorten(shapes)}, no list")

        read = []
        for number, shape in enumerate(shapes, start=1):
            found = _shape(shape, f"{path.name}, shape {number}")
            if found is not None:
                read.append(found)
        if not any(label == TARGET for label, _ in read):
            raise BrokenSample("no outline", path.name, "no shape is a target")
        return cls(tuple(queries), record.get("is_sentence") is True, tuple(read))


TARGET, IGNORED = 1, 255


def _decode(data: bytes) -> str:
    """Decode a file's text: UTF-8, or the Windows code page that some of the files have."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252")


def _shape(shape: Any, name: str) -> tuple[int, Polygon] | None:
    label = shape.get("label") if isinstance(shape, dict) else None
    if not isinstance(label, str):
        raise BrokenSample("bad outline", name, f"label is {shorten(label)}, no text")
    if "flag" in label.lower():
        return None
    points = shape.get("points")
    polygon: Polygon = []
    for point in points if isinstance(points, list) else ():
        numbers = point if isinstance(point, list) and len(point) == 2 else ()
        if not all(type(n) in (int, float) and math.isfinite(n) and abs(n) < 1e6 for n in numbers):
            numbers = ()
        if not numbers:
            raise BrokenSample("bad outline", name, f"point {shorten(point)} is not [x, y]")
        polygon.append((float(numbers[0]), float(numbers[1])))
    if len(polygon) < 3:
        raise BrokenSample("bad outline", name, f"{len(polygon)} points, at least 3 are an outline")
    return (IGNORED if "ignore" in label.lower() else TARGET), polygon
