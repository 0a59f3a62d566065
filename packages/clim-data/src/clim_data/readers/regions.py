"""Images with labelled regions for the region evaluators: COCO panoptic and COCO or LVIS instances.

An item is defined as in the CLIPSelf and CLIM evaluations (arXiv 2310.01403, 2312.11376): the image
letterboxed to a square, boxes relative to that square, masks on the patch grid, a crop of
every region.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, Unpack

from PIL import Image
from torch.utils.data import Dataset

from clim_data.annotations.box_rules import check_box
from clim_data.annotations.coco import collector_paused
from clim_data.annotations.ids import Key
from clim_data.annotations.panoptic import PanopticRecords, SegmentRecord, check_segment_mask
from clim_data.annotations.records import BoxRecord, CocoRecords, reporter
from clim_data.annotations.tables import CategoryTable, ImageRecord
from clim_data.faults import BrokenSample, SkipReport, check_on_error
from clim_data.files.names import inside
from clim_data.files.stamps import FileStamp, file_stamp
from clim_data.pixels.boxes import Box
from clim_data.pixels.decode import load_rgb, open_image
from clim_data.pixels.frames import check_frame
from clim_data.pixels.masks import read_segment_ids
from clim_data.pixels.segmentations import EMPTY, decode_segmentation
from clim_data.readers.region_options import RegionKeywords, RegionRules, RegionView, choose_regions
from clim_data.readers.region_samples import (
    Region,
    RegionSample,
    empty_region_sample,
    make_region_sample,
)
from clim_data.sources.expand import Sources
from clim_data.sources.images import open_named_images

CrowdRecord = TypeVar("CrowdRecord", BoxRecord, SegmentRecord)


class _RegionDataset(Dataset, ABC):
    """The parts that both readers share: sizes of the view, size filter, skipping. `_regions`
    returns one image's regions."""

    def __init__(
        self,
        sources: Sources,
        images: Sequence[tuple[Key, ImageRecord]],
        categories: CategoryTable,
        view: RegionView,
        rules: RegionRules,
        *,
        skipped: SkipReport,
        on_error: str,
        masks: bool = True,
    ):
        self.keys = [key for key, _ in images]
        self.images = [image for _, image in images]
        self.images_dir = sources
        self.files = open_named_images(sources, [image.name for image in self.images])
        self.view, self.rules = view, rules
        self.on_error, self.skipped = on_error, skipped
        self.left_out_regions = tuple(skipped.faults)
        self.with_masks = masks

        self.label_of = categories.label_of
        self.category_ids = list(categories.ids)
        self.class_names: list[str] = list(categories.names)
        self.class_is_thing: list[bool] = list(categories.is_thing)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> RegionSample:
        record, key = self.images[i], self.keys[i]
        found = SkipReport()
        try:
            source, name = self.files.find(i)
            opened = open_image(source, name)
            warning = check_frame(opened, record.size, name)
            if warning is not None:
                found.add(warning)
            image = load_rgb(opened, name=name)
            regions = self._regions(key, image, found)
            sample = make_region_sample(
                image, regions, self.view, image_id=record.id, masks=self.with_masks
            )
        except BrokenSample as fault:
            if self.on_error == "raise":
                raise
            self.skipped.add(fault)
            sample = empty_region_sample(self.view, record.id, fault, masks=self.with_masks)
            found = SkipReport()

        left_out = (*found.faults, *found.warnings)
        return replace(sample, annotated=len(self._records_of(key)), left_out=left_out)

    def stamp(self, i: int) -> tuple[FileStamp | None, ...]:
        """Return a value that changes when a file of item i is replaced; None for a missing
        file."""
        return (self.files.stamp(i),)

    @abstractmethod
    def _records_of(self, key: Key) -> Sequence[BoxRecord | SegmentRecord]:
        """Return the records of an image's regions."""

    @abstractmethod
    def _regions(self, key: Key, image: Image.Image, found: SkipReport) -> list[Region]:
        """Return the regions that count, and report the others to `found`."""

    def _report(self, fault: BrokenSample, found: SkipReport) -> None:
        """Count a broken record, or raise it."""
        for report in (self.skipped, found):
            reporter(report, self.on_error)(fault)

    def _count_or_raise(
        self, records: Sequence[CrowdRecord], found: SkipReport
    ) -> Sequence[CrowdRecord]:
        """Return the first `max_regions` records, without crowds when they are skipped."""
        counted: list[CrowdRecord] = []
        for place, record in enumerate(records):
            if self.rules.max_regions is not None and place >= self.rules.max_regions:
                found.add(BrokenSample("region beyond max_regions", record.name))
            elif self.rules.crowd == "skip" and record.is_crowd:
                found.add(BrokenSample("crowd region", record.name))
            else:
                counted.append(record)
        return counted

    def _in_range(self, box: Sequence[float], name: str, found: SkipReport) -> bool:
        """Return whether the size of a box counts; report it if it does not."""
        width, height = box[2] - box[0], box[3] - box[1]
        low, high = self.rules.area_px
        if low**2 <= width * height <= high**2:
            return True

        reason = "region too large" if width * height > high**2 else "region too small"
        found.add(BrokenSample(reason, name, f"{width:g} x {height:g} pixels"))
        return False


class PanopticRegions(_RegionDataset):
    """COCO panoptic segments, one item for each annotated image.

    A thing has the box of its annotation, a stuff segment the box around its mask. Segments whose
    box is smaller than 8^2 or larger than 1024^2 original pixels are skipped. Labels number the
    sorted category ids. Thing crops are 1.5 boxes wide, stuff crops tight. Records that contradict
    the png or each other are skipped, counted and named in `skipped`: see
    `clim_data.annotations.panoptic`.

    Args:
        images_dir: folder of the image files, or shards (see `expand_sources`).
        panoptic_json, panoptic_dir: COCO files; the png of an image is the "file_name" of its
            annotation.
        view: sizes of the model.
        rules: which segments count.
        on_error: "skip" gives an empty item for an image that cannot be read and names it in
            `skipped`; or "raise".
        keywords: the fields of `view` and `rules` one by one; accepted in their place for one
            release.

    Raises:
        FileNotFoundError, ValueError: files are missing or no panoptic annotation; an option is out
            of range.
    """

    def __init__(
        self,
        images_dir: Sources,
        panoptic_json: str | Path,
        panoptic_dir: str | Path,
        *,
        view: RegionView | None = None,
        rules: RegionRules | None = None,
        on_error: str = "skip",
        **keywords: Unpack[RegionKeywords],
    ):
        view, rules = choose_regions(view, rules, keywords)
        check_on_error(on_error)
        records = PanopticRecords.read(panoptic_json, on_error=on_error)
        if not Path(panoptic_dir).is_dir():
            raise FileNotFoundError(
                f"no segmentation folder {panoptic_dir}: unpack the panoptic png files there"
            )
        self.panoptic_dir, self.records = Path(panoptic_dir), records
        super().__init__(
            images_dir,
            list(records.annotated_images()),
            records.categories,
            view,
            rules,
            skipped=records.faults,
            on_error=on_error,
        )

    def stamp(self, i: int) -> tuple[FileStamp | None, ...]:
        """Return a value that changes when the image or the png of item i is replaced."""
        png = self.records.annotations[self.keys[i]].png
        return (*super().stamp(i), file_stamp(inside(self.panoptic_dir, png)))

    def _records_of(self, key: Key) -> Sequence[SegmentRecord]:
        return self.records.annotations[key].segments

    def _regions(self, key: Key, image: Image.Image, found: SkipReport) -> list[Region]:
        record = self.records.annotations[key]
        path = inside(self.panoptic_dir, record.png)
        ids = read_segment_ids(path, str(path))
        if ids.shape != (image.height, image.width):
            raise BrokenSample(
                "size mismatch", str(path), f"{ids.shape} is not the image's {image.size[::-1]}"
            )

        regions = []
        for segment in self._count_or_raise(record.segments, found):
            mask = ids == segment.id
            try:
                around = check_segment_mask(segment, mask, str(path))
            except BrokenSample as fault:
                self._report(fault, found)
                continue
            box = segment.box if segment.box is not None else self._box_of_stuff(around)
            if self._in_range(box, segment.name, found):
                regions.append(Region(box, segment.label, segment.is_thing, mask))
        return regions

    def _box_of_stuff(self, box: Box) -> tuple[float, float, float, float]:
        """Return the box as `stuff_box` wants it: "inclusive" ends at the last pixel's index."""
        left, top, right, bottom = map(float, box)
        if self.rules.stuff_box == "inclusive":
            return left, top, right - 1, bottom - 1
        return left, top, right, bottom


class InstanceRegions(_RegionDataset):
    """COCO or LVIS instances, one item for each image that has any annotation; every region is a
    thing.

    Arguments, item and size filter are the same as in `PanopticRegions`. The box comes from the
    annotation, the mask from its polygons or RLE. LVIS images are found by the end of their
    "coco_url". Annotations that the rules of `clim_data.annotations.records` refuse are counted and
    named in `skipped`.

    Args:
        masks: False for files without segmentations (`RegionSample.masks` is then None).

    Raises:
        FileNotFoundError, ValueError: files are missing, or there is no segmentation while `masks`
            is True.
    """

    def __init__(
        self,
        images_dir: Sources,
        instances_json: str | Path,
        *,
        view: RegionView | None = None,
        rules: RegionRules | None = None,
        masks: bool = True,
        on_error: str = "skip",
        **keywords: Unpack[RegionKeywords],
    ):
        view, rules = choose_regions(view, rules, keywords)
        check_on_error(on_error)
        # The collector would look at all records again after each step.
        with collector_paused():
            self.records = CocoRecords.read(instances_json, on_error=on_error)
            if masks:
                self.records.check_segmentations(on_error)
            images = list(self.records.annotated_images())
        super().__init__(
            images_dir,
            images,
            self.records.labels,
            view,
            rules,
            skipped=self.records.faults,
            on_error=on_error,
            masks=masks,
        )

    def _records_of(self, key: Key) -> Sequence[BoxRecord]:
        return self.records.boxes_of(key)

    def _regions(self, key: Key, image: Image.Image, found: SkipReport) -> list[Region]:
        size = image.height, image.width
        regions = []
        for record in self._count_or_raise(self.records.boxes_of(key), found):
            try:
                # A file without sizes has its boxes and masks checked here.
                box = record.box
                if self.records.images[key].size is None:
                    box, _ = check_box(record.fields["bbox"], size, record.name)
                if not self._in_range(box, record.name, found):
                    continue
                mask = None
                if self.with_masks:
                    segmentation = record.fields.get("segmentation")
                    mask = decode_segmentation(segmentation, *size, record.name)
                    if not mask.any():
                        raise BrokenSample(EMPTY, record.name, "no pixel is set")
            except BrokenSample as fault:
                self._report(fault, found)
                continue
            regions.append(Region(box, record.label, True, mask))
        return regions
