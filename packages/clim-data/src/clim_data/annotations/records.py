"""The validation layer: the content of an annotation file, as checked records or named faults.

Training, packing, evaluation, proposals, pseudo labels and grounding read through this module, so a
record gets the same answer from all of them. One bad record is skipped, counted and named with the
file, its place and its id. The rest of its image and of its file stays.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clim_data.annotations.box_rules import Corners, box_inside, check_box, is_four_numbers
from clim_data.annotations.coco import collector_paused, read_annotations
from clim_data.annotations.ids import Key, need_object, record_name
from clim_data.annotations.tables import (
    CategoryTable,
    ImageRecord,
    ImageTable,
    check_ids_meet,
    flag,
)
from clim_data.faults import BrokenSample, SampleWarning, SkipReport, check_on_error
from clim_data.pixels.segmentations import check_segmentation, compress_segmentation

Report = Callable[[BrokenSample], None]

_NO_BOX: Corners = (0.0, 0.0, 0.0, 0.0)


class BoxRecord(NamedTuple):
    """A usable annotation.

    image: key of its image. label: number of its category, -1 where labels do not count. box: XYXY
    in pixels, inside the image where its size is known. is_crowd: a region of many objects. fields:
    the record as the file has it. file, place: where that is.
    """

    image: Key
    label: int
    box: Corners
    is_crowd: bool
    fields: dict
    file: str
    place: int

    @property
    def name(self) -> str:
        """The file, place and id, for errors."""
        return record_name(self.file, "annotation", self.place, self.fields)


class BoxPass:
    """One pass over the annotations of a file, which may be streamed.

    Args:
        images: the file's images.
        categories: None when the labels do not count.
        report: called with the fault of every skipped annotation, and with a warning for every
            clipped box.
        need_box: False where segmentations are what counts: an annotation may then have no "bbox",
            and its box is empty. A box that is present must still be valid.
    """

    def __init__(
        self,
        images: ImageTable,
        categories: CategoryTable | None,
        report: Report,
        *,
        need_box: bool = True,
    ):
        self.images, self.categories, self.report = images, categories, report
        self.need_box = need_box
        self._sizes = {key: image.size for key, image in images.items()}
        self._seen = self._without_image = 0
        self._boxes = self._fractions = 0

    def check(self, place: int, annotation: Any) -> BoxRecord | None:
        """Check the annotation at `place` of the list; return None if it is skipped."""
        self._seen += 1
        try:
            return self._record(place, annotation)
        except BrokenSample as fault:
            # Named only here: names of a million sound records would take seconds.
            name = record_name(self.images.file, "annotation", place, annotation)
            self.report(BrokenSample(fault.reason, name, fault.detail))
            return None

    def _record(self, place: int, annotation: Any) -> BoxRecord | None:
        if not isinstance(annotation, dict):
            self._without_image += 1
            need_object(annotation)
        image = annotation.get("image_id")
        if type(image) is not int or image not in self._sizes:
            image = self._image(annotation)
            if image is None:
                return None

        size, bbox = self._sizes[image], annotation.get("bbox")
        box = box_inside(bbox, size)
        is_clipped = False
        if box is None:
            box, is_clipped = self._box(bbox, size)
        else:
            self._boxes += 1

        label = -1 if self.categories is None else self.categories.label(annotation)
        is_crowd = flag(annotation.get("iscrowd"), "iscrowd")
        record = BoxRecord(image, label, box, is_crowd, annotation, self.images.file, place)
        if is_clipped and size is not None:
            detail = f"bbox {bbox} in {size[1]} x {size[0]} pixels"
            self.report(SampleWarning("box clipped to its image", record.name, detail))
        return record

    def _image(self, annotation: dict) -> Key | None:
        try:
            return self.images.find(annotation)
        except BrokenSample:
            self._without_image += 1
            raise

    def _box(self, bbox: Any, size: tuple[int, int] | None) -> tuple[Corners, bool]:
        """Check a box in full; count those that could be fractions of an image of several
        pixels."""
        if bbox is None and not self.need_box:
            return _NO_BOX, False
        if is_four_numbers(bbox):
            self._boxes += 1
            if max(bbox) <= 1 and min(bbox) >= 0:
                self._fractions += size is None or max(size) > 2
        return check_box(bbox, size)

    def finish(self) -> None:
        """Refuse a file whose annotations as a whole have another meaning.

        Raises:
            ValueError: all boxes are within 0..1, or no annotation belongs to an image.
        """
        file = self.images.file
        if self._boxes and self._fractions == self._boxes:
            raise ValueError(
                f"{file}: all {self._boxes} boxes are within 0..1: bbox is [x, y, width, height] "
                "in pixels, so multiply by the images' width and height"
            )
        keys = (*self.images, *self.images.refused)
        check_ids_meet(self._without_image, self._seen, file, keys)


class CocoRecords:
    """The images, categories and boxes of a COCO or LVIS instances file, checked.

    Attributes:
        file: name of the file.
        images: by key.
        categories: None when they were not read.
        faults: skipped records, and warnings.
    """

    def __init__(
        self,
        file: str,
        images: ImageTable,
        categories: CategoryTable | None,
        faults: SkipReport,
        boxes: dict[Key, list[BoxRecord]],
    ):
        self.file, self.images, self.categories = file, images, categories
        self.faults, self._boxes = faults, boxes

    @property
    def labels(self) -> CategoryTable:
        """The categories; ValueError when they were not read."""
        if self.categories is None:
            raise ValueError(f"{self.file} was read without its categories: read it with labels")
        return self.categories

    @classmethod
    def read(
        cls, path: str | Path, *, on_error: str = "skip", labelled: bool = True
    ) -> "CocoRecords":
        """Read and check a file.

        Args:
            path: json with "images", "annotations" and, for labels, "categories".
            on_error: "skip" counts and names a bad record in `faults`; "raise" raises it.
            labelled: False for files whose categories do not count.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not json, a list is missing, or the file as a whole is refused.
        """
        needed = ("images", "annotations", *(("categories",) if labelled else ()))
        with collector_paused():
            record = read_annotations(path, *needed)
            return cls.of(record, Path(path).name, on_error=on_error, labelled=labelled)

    @classmethod
    def of(
        cls,
        contents: Mapping[str, Any],
        file: str,
        *,
        on_error: str = "skip",
        labelled: bool = True,
    ) -> "CocoRecords":
        """Check the contents of a file, see `read`.

        Args:
            contents: of `read_annotations`, with the lists that are needed.
            file: name of the file, for errors.
            on_error, labelled: as in `read`.

        Raises:
            ValueError: the file as a whole is refused.
        """
        faults = SkipReport()
        report = reporter(faults, on_error)
        with collector_paused():
            images = ImageTable.of(contents["images"], file, report)
            categories = CategoryTable.of(contents["categories"], file) if labelled else None
            boxes: dict[Key, list[BoxRecord]] = {}
            boxes_pass = BoxPass(images, categories, report)
            for place, annotation in enumerate(contents["annotations"]):
                box = boxes_pass.check(place, annotation)
                if box is not None:
                    boxes.setdefault(box.image, []).append(box)
            boxes_pass.finish()
        return cls(file, images, categories, faults, boxes)

    def boxes_of(self, image: Key) -> Sequence[BoxRecord]:
        """Return the usable boxes of an image, in the order of the file."""
        return self._boxes.get(image, ())

    def check_given_segmentations(self) -> None:
        """Skip boxes whose segmentation cannot be used; a box without one stays."""
        for key, boxes in self._boxes.items():
            size = self.images[key].size
            if size is None:
                continue
            usable = []
            for box in boxes:
                is_empty = not box.fields.get("segmentation")
                if is_empty or has_segmentation(box, size, self.faults.add):
                    usable.append(box)
            self._boxes[key] = usable

    def annotated_images(self) -> Iterator[tuple[Key, ImageRecord]]:
        """Yield the images that have a usable box, in the order of the file."""
        for key, image in self.images.items():
            if key in self._boxes:
                yield key, image

    def check_segmentations(self, on_error: str = "skip") -> None:
        """Skip, count and name the boxes without a usable segmentation.

        Raises:
            ValueError: no box has a segmentation at all.
        """
        with collector_paused():
            self._check_segmentations(reporter(self.faults, on_error))

    def _check_segmentations(self, report: Report) -> None:
        total = with_one = 0
        for key, boxes in self._boxes.items():
            size = self.images[key].size
            total += len(boxes)
            with_one += sum(bool(box.fields.get("segmentation")) for box in boxes)
            # Without a size in the file they are checked when the image is opened.
            if size is not None:
                self._boxes[key] = [b for b in boxes if has_segmentation(b, size, report)]
        if total and not with_one:
            raise ValueError(
                f"{self.file} has annotations without segmentation: ask for boxes only "
                "(masks=False; clim-eval regions: --outputs boxes)"
            )


def has_segmentation(box: BoxRecord, size: tuple[int, int], report: Report) -> bool:
    """Tell whether a record has a usable segmentation in an image of `size`; if not, report it."""
    try:
        dropped = check_segmentation(box.fields.get("segmentation"), size, box.name)
    except BrokenSample as fault:
        report(fault)
        return False
    _report_polygons(dropped, box, report)
    return True


def mask_text(box: BoxRecord, size: tuple[int, int], report: Report) -> bytes | None:
    """Draw the segmentation of a record in an image of `size`, as `compress_segmentation` does.

    Returns:
        COCO's text of runs; None for a record without a usable mask, which is reported.
    """
    segmentation = box.fields.get("segmentation")
    try:
        text, dropped = compress_segmentation(segmentation, size)
    except BrokenSample as fault:
        # Named only here, as boxes are.
        report(BrokenSample(fault.reason, box.name, fault.detail))
        return None
    _report_polygons(dropped, box, report)
    return text


def _report_polygons(dropped: int, box: BoxRecord, report: Report) -> None:
    if dropped:
        report(SampleWarning("bad polygon", box.name, f"{dropped} without an area left out"))


def reporter(faults: SkipReport, on_error: str) -> Report:
    """Return a function that counts a fault in `faults`, or raises it, as `on_error` says."""
    check_on_error(on_error)

    def report(fault: BrokenSample) -> None:
        if on_error == "raise" and not isinstance(fault, SampleWarning):
            raise fault
        faults.add(fault)

    return report
