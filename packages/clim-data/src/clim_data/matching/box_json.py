"""A COCO json of boxes, read item by item: of each box six numbers stay, not the objects of its
record."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clim_data.annotations.coco import collector_paused, require_annotation_file
from clim_data.annotations.records import BoxPass, BoxRecord
from clim_data.annotations.tables import slim_image
from clim_data.files.json_stream import stream_json


@dataclass(frozen=True)
class BoxRules:
    """Which boxes of a json count.

    Args:
        area_px: square roots of the smallest and largest area in pixels of the image; None for any
            size.
        crowd: "keep" crowd regions or "skip" them.
        labelled: whether every box must have one of the json's categories.

    Raises:
        ValueError: an option is out of range.
    """

    area_px: tuple[float, ...] | None = None
    crowd: str = "keep"
    labelled: bool = True

    def __post_init__(self) -> None:
        if self.crowd not in ("keep", "skip"):
            raise ValueError(f'crowd={self.crowd!r} is not known: use "keep" or "skip"')
        if self.area_px is not None and not (
            len(self.area_px) == 2 and 0 <= self.area_px[0] < self.area_px[1]
        ):
            raise ValueError(
                f"area_px={self.area_px!r} must be (low, high) with 0 <= low < high, or None"
            )

    def counts(self, record: BoxRecord) -> bool:
        """Tell whether a usable box counts."""
        if record.is_crowd and self.crowd == "skip":
            return False
        if self.area_px is None:
            return True
        left, top, right, bottom = record.box
        low, high = self.area_px
        return low**2 <= (right - left) * (bottom - top) <= high**2


@dataclass(frozen=True)
class FoundBoxes:
    """boxes: float64 (N, 4), XYXY in pixels. labels: int64 (N,), -1 without categories. counts:
    int64 (n,), of each image; boxes and labels are image by image."""

    boxes: np.ndarray
    labels: np.ndarray
    counts: np.ndarray


def read_lists(path: str | Path, *tables: str) -> dict[str, list]:
    """Return the named lists of a json ("images", "categories").

    Of an image only id, name and size stay.

    Boxes that come after them are not read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not json, or a list is missing or empty.
    """
    found: dict[str, list] = {name: [] for name in tables}
    others = set()
    for name, item in stream_json(require_annotation_file(path)):
        if name in found:
            found[name].append(slim_image(item) if name == "images" else item)
        else:
            others.add(name)
            if all(found.values()) and name == "annotations":
                break

    missing = [name for name in tables if not found[name]]
    if missing:
        lists = sorted({*others, *(name for name in found if found[name])})
        there = ", ".join(f'"{name}"' for name in lists) or "none"
        raise ValueError(
            f'{path} has no list "{missing[0]}", or nothing in it (found {there}): give a '
            "COCO-style annotation file"
        )
    return found


def read_boxes(path: str | Path, boxes: BoxPass, rules: BoxRules) -> FoundBoxes:
    """Return the usable boxes of the images that `boxes` checks for, in their order.

    Args:
        path: the json, which is streamed.
        boxes: checks the annotations, and reports those that are left out.
        rules: which of the usable boxes count.

    Raises:
        ValueError: not json, or the file as a whole is refused.
    """
    number_of = {image: number for number, image in enumerate(boxes.images)}
    values, owners, labels = array("d"), array("q"), array("q")
    with collector_paused():
        for place, annotation in enumerate(_annotations(path)):
            record = boxes.check(place, annotation)
            if record is not None and rules.counts(record):
                labels.append(record.label)
                owners.append(number_of[record.image])
                values.extend(record.box)
    boxes.finish()

    of_image = np.array(owners, dtype=np.int64)
    order = np.argsort(of_image, kind="stable")
    return FoundBoxes(
        np.array(values, dtype=np.float64).reshape(-1, 4)[order],
        np.array(labels, dtype=np.int64)[order],
        np.bincount(of_image, minlength=len(number_of)),
    )


def _annotations(path: str | Path) -> Iterator[Any]:
    return (item for name, item in stream_json(path) if name == "annotations")
