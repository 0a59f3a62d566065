"""A COCO json of boxes, read item by item: six numbers per box stay in memory, not its record."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clim_data.annotations.coco import collector_paused, require_annotation_file
from clim_data.annotations.records import BoxPass, BoxRecord, mask_text
from clim_data.annotations.tables import slim_image
from clim_data.files.json_stream import stream_json
from clim_data.matching.mask_texts import MaskTexts


@dataclass(frozen=True)
class BoxRules:
    """Rules for the boxes of a json.

    Args:
        area_px: square roots of the smallest and largest area in pixels of the image; None for any
            size.
        crowd: "keep" crowd regions or "skip" them.
        labelled: whether every box must have one of the json's categories.
        masks: whether every box must have a usable segmentation, which is then read.

    Raises:
        ValueError: an option is out of range.
    """

    area_px: tuple[float, ...] | None = None
    crowd: str = "keep"
    labelled: bool = True
    masks: bool = False

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
    int64 (n,), of each image; boxes and labels are image by image. masks: of the boxes, None if the
    rules do not need them."""

    boxes: np.ndarray
    labels: np.ndarray
    counts: np.ndarray
    masks: MaskTexts | None = None


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
        boxes: checks the annotations, and reports the skipped ones.
        rules: which of the usable boxes count.

    Raises:
        ValueError: not json, or the file as a whole is refused.
    """
    number_of = {image: number for number, image in enumerate(boxes.images)}
    values, owners, labels = array("d"), array("q"), array("q")
    texts = _Texts(boxes) if rules.masks else None
    with collector_paused():
        for place, annotation in enumerate(_annotations(path)):
            record = boxes.check(place, annotation)
            if record is None or not rules.counts(record):
                continue
            if texts is not None and not texts.add(record):
                continue
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
        None if texts is None else texts.finish().take(order),
    )


class _Texts:
    """Collects the masks of the boxes of a pass."""

    def __init__(self, boxes: BoxPass):
        self._boxes = boxes
        self._bytes, self._ends = bytearray(), array("q", [0])
        self._seen = self._with_one = 0

    def add(self, record: BoxRecord) -> bool:
        """Read the mask of a box; False for a box without one, which is reported."""
        self._seen += 1
        self._with_one += bool(record.fields.get("segmentation"))
        size = self._boxes.images[record.image].size
        assert size is not None  # images without a size are left out before
        text = mask_text(record, size, self._boxes.report)
        if text is None:
            return False
        self._bytes += text
        self._ends.append(len(self._bytes))
        return True

    def finish(self) -> MaskTexts:
        """Return the masks; ValueError for a file without any segmentation."""
        if self._seen and not self._with_one:
            raise ValueError(
                f"{self._boxes.images.file} has annotations without segmentation: give a file with "
                "masks, or train a detector without mask head (masks=False, --data.no-masks)"
            )
        ends = np.array(self._ends, dtype=np.int64)
        spans = np.stack([ends[:-1], ends[1:]], axis=1)
        return MaskTexts(np.frombuffer(bytes(self._bytes), dtype=np.uint8), spans)


def _annotations(path: str | Path) -> Iterator[Any]:
    return (item for name, item in stream_json(path) if name == "annotations")
