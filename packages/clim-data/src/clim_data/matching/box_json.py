"""A COCO json of boxes read item by item: what is kept of a box are six numbers, not the objects of
its record."""

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clim_data.annotations.coco import label_of_category, require_annotation_file
from clim_data.faults import BrokenSample
from clim_data.files.json_stream import stream_json
from clim_data.sources.store import SampleStore

OF_AN_IMAGE = ("id", "file_name", "coco_url", "height", "width")


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


@dataclass(frozen=True)
class FoundBoxes:
    """boxes: float64 (N, 4), XYXY in pixels. labels: int64 (N,), -1 without categories. counts:
    int64 (n,), of each image; boxes and labels are image by image."""

    boxes: np.ndarray
    labels: np.ndarray
    counts: np.ndarray


def read_lists(path: str | Path, *tables: str) -> dict[str, list]:
    """The named lists of a json ("images", "categories"); of an image only id, name and size are
    kept.

    Boxes that come after them are not read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not json, or a list is missing or empty.
    """
    found: dict[str, list] = {name: [] for name in tables}
    others = set()
    for name, item in stream_json(require_annotation_file(path)):
        if name in found:
            found[name].append(_slim(item) if name == "images" else item)
        else:
            others.add(name)
            if all(found.values()) and name == "annotations":
                break
    missing = [name for name in tables if not found[name]]
    if missing:
        there = (
            ", ".join(f'"{name}"' for name in sorted(others.union(n for n in found if found[n])))
            or "none"
        )
        raise ValueError(
            f'{path} has no list "{missing[0]}", or nothing in it (found {there}): give a '
            "COCO-style annotation file"
        )
    return found


def read_boxes(
    path: str | Path,
    size_of: Mapping[Any, tuple[int, int]],
    categories: Sequence[dict],
    store: SampleStore,
    rules: BoxRules,
    *,
    refused: frozenset = frozenset(),
) -> FoundBoxes:
    """Usable boxes of the images whose ids are the keys of `size_of` (height, width), in its order.

    Others are noted in `store`. `refused`: ids of images that were named there already, and so are
    not named again.

    Raises:
        ValueError: not json, or an annotation is no object.
    """
    label_of = label_of_category(list(categories))
    number_of = {image_id: number for number, image_id in enumerate(size_of)}
    values, owners, labels = array("d"), array("q"), array("q")
    for place, annotation in enumerate(_annotations(path)):
        if not isinstance(annotation, dict):
            raise ValueError(
                f"annotation {place} is {annotation!r}, not an object; give a COCO-style file"
            )
        if rules.crowd == "skip" and annotation.get("iscrowd"):
            continue
        image_id = annotation.get("image_id")
        known = isinstance(image_id, int | str)
        if known and image_id in refused:
            continue
        try:
            if not known or image_id not in number_of:
                name = f"annotation {annotation.get('id', place)}"
                raise BrokenSample("box without image", name, f"image {image_id}")
            box = _usable_box(annotation, size_of[image_id], rules)
            if box is not None:
                labels.append(_label(annotation, label_of) if rules.labelled else -1)
                owners.append(number_of[image_id])
                values.extend(box)
        except BrokenSample as fault:
            store.report_fault(fault)
    of_image = np.array(owners, dtype=np.int64)
    order = np.argsort(of_image, kind="stable")
    boxes = np.array(values, dtype=np.float64).reshape(-1, 4)[order]
    return FoundBoxes(
        boxes,
        np.array(labels, dtype=np.int64)[order],
        np.bincount(of_image, minlength=len(size_of)),
    )


def _annotations(path: str | Path) -> Iterator[Any]:
    return (item for name, item in stream_json(path) if name == "annotations")


def _slim(image: Any) -> Any:
    return (
        {key: image[key] for key in OF_AN_IMAGE if key in image}
        if isinstance(image, dict)
        else image
    )


def _usable_box(
    annotation: dict, size: Sequence[int], rules: BoxRules
) -> tuple[float, float, float, float] | None:
    """XYXY in pixels; None for a box that the rules leave out.

    Raises:
        BrokenSample: it is no box, or none of it is in the image of (height, width).
    """
    name, given = f"annotation {annotation.get('id')}", annotation.get("bbox")
    try:
        x, y, width, height = (float(v) for v in given or ())
    except (TypeError, ValueError):
        raise BrokenSample(
            "bad box", name, f"bbox is {given!r}, not [x, y, width, height]"
        ) from None
    if not (math.isfinite(x + y + width + height) and width > 0 and height > 0):
        raise BrokenSample("bad box", name, f"bbox {given!r} has no area")
    if not (x < size[1] and y < size[0] and x + width > 0 and y + height > 0):
        raise BrokenSample(
            "box outside the image", name, f"bbox {given!r} in {size[1]} x {size[0]} pixels"
        )
    if (
        rules.area_px is not None
        and not rules.area_px[0] ** 2 <= width * height <= rules.area_px[1] ** 2
    ):
        return None
    return x, y, x + width, y + height


def _label(annotation: dict, label_of: dict) -> int:
    category = annotation.get("category_id")
    if not isinstance(category, int | str) or category not in label_of:
        raise BrokenSample(
            "unknown category", f"annotation {annotation.get('id')}", f"category_id {category!r}"
        )
    return label_of[category]
