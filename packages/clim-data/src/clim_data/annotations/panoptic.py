"""COCO panoptic files: images, categories and segments, as checked records; and the png against
them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from clim_data.annotations.box_rules import Corners, check_box
from clim_data.annotations.coco import read_annotations
from clim_data.annotations.ids import Key, id_key, need_object, record_name, shorten
from clim_data.annotations.records import Report, reporter
from clim_data.annotations.tables import (
    CategoryTable,
    ImageRecord,
    ImageTable,
    check_ids_meet,
    flag,
    slim_image,
)
from clim_data.faults import BrokenSample, SkipReport
from clim_data.files.json_stream import stream_json
from clim_data.files.names import leads_out
from clim_data.pixels.boxes import Box, box_of_mask

BAD = "bad segment"
_MAX_ID = 2**24 - 1  # three bytes of colour


class SegmentRecord(NamedTuple):
    """A usable segment of an image.

    id: its pixels' value in the png. box: of a thing, XYXY in pixels; None for stuff. area: pixels
    that the file states, None where it states none. name: its file, image and id, for errors.
    fields: the record as the file has it.
    """

    id: int
    label: int
    is_thing: bool
    box: Corners | None
    is_crowd: bool
    area: float | None
    name: str
    fields: dict


class PanopticRecord(NamedTuple):
    """The annotation of an image: name of its png below the folder, and its usable segments."""

    png: str
    segments: tuple[SegmentRecord, ...]


@dataclass(frozen=True)
class PanopticRecords:
    """A COCO panoptic file. annotations: by key of the image, each image at most one."""

    file: str
    images: ImageTable
    categories: CategoryTable
    annotations: Mapping[Key, PanopticRecord]
    faults: SkipReport

    @classmethod
    def read(cls, path: str | Path, *, on_error: str = "skip") -> "PanopticRecords":
        """Read and check a file.

        Args:
            path: json with "images", "annotations" and "categories".
            on_error: "skip" counts and names a bad record in `faults`; "raise" raises it.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not json, a list is missing, an image has two annotations, or the lists of
                images or categories are refused.
        """
        record = read_annotations(path, "images", "annotations", "categories")
        file = Path(path).name
        faults = SkipReport()
        report = reporter(faults, on_error)
        images = ImageTable.of(record["images"], file, report)
        categories = CategoryTable.of(record["categories"], file)

        reader = PanopticPass(images, categories, report)
        annotations: dict[Key, PanopticRecord] = {}
        for place, annotation in enumerate(record["annotations"]):
            found = reader.check(place, annotation)
            if found is not None:
                annotations[found[0]] = found[1]
        reader.finish()
        return cls(file, images, categories, annotations, faults)

    def annotated_images(self) -> Iterator[tuple[Key, ImageRecord]]:
        """Yield the images that have an annotation, in the order of the file."""
        for key, image in self.images.items():
            if key in self.annotations:
                yield key, image


class PanopticPass:
    """One pass over the annotations of a panoptic file, which may be streamed."""

    def __init__(self, images: ImageTable, categories: CategoryTable, report: Report):
        self.images, self.categories, self.report = images, categories, report
        self._seen: set[Key] = set()
        self._total = self._without_image = 0

    def check(self, place: int, annotation: Any) -> tuple[Key, PanopticRecord] | None:
        """Return (image, record) of the annotation at `place`, or None if it is skipped.

        Raises:
            ValueError: its image has an annotation already.
        """
        file = self.images.file
        self._total += 1
        name = record_name(file, "annotation", place, annotation, "image_id", "image_id")
        try:
            key = self._image(annotation, name)
            if key is None:
                return None
            if key in self._seen:
                raise ValueError(
                    f"{file}: image {self.images[key].id!r} has two annotations: leave one of them"
                )
            self._seen.add(key)
            return key, self._record(annotation, key, name)
        except BrokenSample as fault:
            self.report(fault)
            return None

    def finish(self) -> None:
        """Raise ValueError when no annotation belongs to an image."""
        keys = (*self.images, *self.images.refused)
        check_ids_meet(self._without_image, self._total, self.images.file, keys)

    def _image(self, annotation: Any, name: str) -> Key | None:
        try:
            return self.images.find(need_object(annotation, name), name)
        except BrokenSample:
            self._without_image += 1
            raise

    def _record(self, annotation: dict, key: Key, name: str) -> PanopticRecord:
        png, segments = _png_and_segments(annotation, name)
        ids = [s.get("id") for s in segments if isinstance(s, dict)]
        usable = []
        for place, segment in enumerate(segments):
            shown = segment.get("id") if isinstance(segment, dict) else None
            own = f"{self.images.file}, segment {place + 1} (id {shorten(shown)}) of image {key}"
            try:
                usable.append(self._segment(segment, ids, self.images[key].size, own))
            except BrokenSample as fault:
                self.report(fault)
        return PanopticRecord(png, tuple(usable))

    def _segment(
        self, segment: Any, ids: list, size: tuple[int, int] | None, name: str
    ) -> SegmentRecord:
        if not isinstance(segment, dict):
            raise BrokenSample(BAD, name, f"{shorten(segment)} is no object")
        segment_id = segment.get("id")
        if not _is_segment_id(segment_id):
            detail = f"id {shorten(segment_id)} is no whole number from 1 to {_MAX_ID}"
            raise BrokenSample(BAD, name, f"{detail}, as the png holds it")
        if ids.count(segment_id) > 1:
            raise BrokenSample(BAD, name, f"id {segment_id} is there twice in the image")

        label = self.categories.label(segment, name)
        is_thing = self.categories.is_thing[label]
        box = check_box(segment.get("bbox"), size, name)[0] if is_thing else None
        is_crowd = flag(segment.get("iscrowd"), "iscrowd", name)
        area = segment.get("area")
        stated = float(area) if isinstance(area, int | float) and 0 < area < 1e12 else None
        return SegmentRecord(segment_id, label, is_thing, box, is_crowd, stated, name, segment)


def _png_and_segments(annotation: dict, name: str) -> tuple[str, list]:
    """Return the png's name and the list of segments of an annotation.

    Raises:
        BrokenSample: one is missing, or the name leads out of its folder.
    """
    png, segments = annotation.get("file_name"), annotation.get("segments_info")
    if not isinstance(png, str) or leads_out(png):
        detail = f"file_name {shorten(png)}: give the png's name below its folder"
        raise BrokenSample("path outside the folder", name, detail)
    if not isinstance(segments, list):
        raise BrokenSample("no segments", name, f"segments_info is {shorten(segments)}")
    return png, segments


def _is_segment_id(value: Any) -> TypeGuard[int]:
    """Return whether a png can hold an id: 0 stands for no segment."""
    return type(value) is int and 0 < value <= _MAX_ID


@dataclass(frozen=True)
class SegmentIndex:
    """The segments of a panoptic file in little memory, for other files that point to segments.

    images: by key. drawn: by key of the image, the png's name and the category's key of every
    segment. unusable: why a segment of an image cannot be used.
    """

    images: ImageTable
    categories: CategoryTable
    drawn: Mapping[Key, tuple[str, Mapping[int, Key | None]]]
    unusable: Mapping[tuple[Key, int], BrokenSample]

    @classmethod
    def read(cls, path: str | Path, report: Report) -> "SegmentIndex":
        """Read a file item by item.

        Args:
            path: panoptic_train2017.json or panoptic_val2017.json.
            report: called with the fault of every skipped image and annotation.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not json, no panoptic file, or the file as a whole is refused.
        """
        images, categories = [], []
        drawn: dict[Any, tuple[str, Mapping[int, Key | None]]] = {}
        unusable: dict[tuple[Key, int], BrokenSample] = {}
        file = Path(path).name
        place = -1
        for table, item in stream_json(path):
            if table == "images":
                images.append(slim_image(item))
            elif table == "categories":
                categories.append(item)
            elif table == "annotations":
                place += 1
                try:
                    key, found = _slim(item, record_name(file, "annotation", place, item), unusable)
                except BrokenSample as fault:
                    report(fault)
                    continue
                if key in drawn:
                    raise ValueError(
                        f"{file}: image {key!r} has two annotations: leave one of them"
                    )
                drawn[key] = found
        if not images or not categories or not drawn:
            raise ValueError(
                f"{path} lacks images, categories or annotations: give panoptic_train2017.json or "
                "_val2017"
            )
        tables = ImageTable.of(images, file, report), CategoryTable.of(categories, file)
        return cls(*tables, drawn, unusable)

    def is_thing(self, image: Key, segment_id: int) -> bool:
        """Return whether a segment of an image is a thing.

        Raises:
            BrokenSample: the image has no such segment, or it cannot be used.
        """
        _, segments = self.drawn[image]
        name = f"{self.images.file}, segment {segment_id} of image {image}"
        if segment_id not in segments:
            raise BrokenSample("unknown segment", name, "it is not in the panoptic file")
        label = self.categories.label({"category_id": segments[segment_id]}, name)
        is_thing = self.categories.is_thing[label]
        fault = self.unusable.get((image, segment_id))
        if fault is not None and (is_thing or fault.reason == BAD):
            raise fault
        return is_thing


def _slim(
    annotation: Any, name: str, unusable: dict[tuple[Key, int], BrokenSample]
) -> tuple[Key, tuple[str, dict[int, Key | None]]]:
    """Return (image, (png, category of every segment)); note segments that cannot be used."""
    key = id_key(need_object(annotation, name).get("image_id"))
    if key is None:
        raise BrokenSample("box without image", name, "it has no image_id")

    png, segments = _png_and_segments(annotation, name)
    found: dict[int, Key | None] = {}
    for segment in segments:
        segment_id = segment.get("id") if isinstance(segment, dict) else None
        if not _is_segment_id(segment_id):
            continue  # no phrase can point to it
        own = f"{name}, segment {segment_id}"
        if segment_id in found:
            detail = f"id {segment_id} is there twice in the image"
            unusable[key, segment_id] = BrokenSample(BAD, own, detail)
        found[segment_id] = id_key(segment.get("category_id"))
        try:
            if "bbox" in segment:
                check_box(segment["bbox"], None)
        except BrokenSample as fault:
            unusable.setdefault((key, segment_id), BrokenSample(fault.reason, own, fault.detail))
    return key, (png, found)


def check_segment_mask(segment: SegmentRecord, mask: np.ndarray, png: str) -> Box:
    """Check the pixels of a segment, bool (H, W), against its record.

    Returns:
        The box around them: XYXY in pixels.

    Raises:
        BrokenSample: there are none, or their number differs from the record's area by more than a
            tenth.
    """
    around = box_of_mask(mask)
    if around is None:
        detail = f"its id is not in {png}: give the png that belongs to the json"
        raise BrokenSample("segment without pixels", segment.name, detail)
    pixels = int(np.count_nonzero(mask))
    if segment.area is not None and abs(pixels - segment.area) > max(16.0, 0.1 * segment.area):
        detail = f"area {segment.area:g}, but {pixels} pixels in {png}"
        raise BrokenSample("area mismatch", segment.name, detail)
    return around
