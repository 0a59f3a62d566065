"""Images with labelled regions, as the region evaluators see them: COCO panoptic and COCO or LVIS
instances.

The item definition is that of the CLIPSelf and CLIM evaluations (arXiv 2310.01403, 2312.11376): the
image letterboxed to a square, boxes relative to that square, masks on the patch grid, a crop of
every region.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, Unpack

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from clim_data.annotations.ids import Key
from clim_data.annotations.panoptic import PanopticRecords, SegmentRecord, check_segment_mask
from clim_data.annotations.records import BoxRecord, CocoRecords, check_box, reporter
from clim_data.annotations.tables import CategoryTable, ImageRecord
from clim_data.faults import BrokenSample, SkipReport, check_on_error
from clim_data.files.names import inside, locate
from clim_data.pixels import transforms as T
from clim_data.pixels.boxes import Box
from clim_data.pixels.crops import crop_window, cut_crops
from clim_data.pixels.decode import load_rgb, open_image, pixels
from clim_data.pixels.frames import check_frame
from clim_data.pixels.masks import masks_to_grid, read_segment_ids
from clim_data.pixels.segmentations import decode_segmentation
from clim_data.readers.region_options import RegionKeywords, RegionRules, RegionView, choose_regions

CrowdRecord = TypeVar("CrowdRecord", BoxRecord, SegmentRecord)


@dataclass(frozen=True)
class RegionSample:
    """One image and its n usable regions.

    image: uint8 (3, S, S), letterboxed, zeros at the right and the bottom.
    boxes: float32 (n, 4), XYXY in [0, 1] of the padded square.
    labels: int64 (n,).
    areas: float32 (n,), width * height of the box in original pixels.
    is_thing: bool (n,).
    masks: uint8 (n, h, w) on the patch grid, None when they were not asked for.
    crops: uint8 (n, 3, c, c) or None.
    error: why nothing could be read; the image is then black and n = 0.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    areas: Tensor
    is_thing: Tensor
    masks: Tensor | None
    crops: Tensor | None
    image_id: int
    error: str = ""


@dataclass(frozen=True)
class Region:
    """One region in the frame of its image: box XYXY in pixels, label, thing or stuff, mask (H, W)
    bool or None."""

    box: tuple[float, float, float, float]
    label: int
    is_thing: bool
    mask: np.ndarray | None


def make_region_sample(
    image: Image.Image,
    regions: Sequence[Region],
    view: RegionView,
    *,
    image_id: int,
    masks: bool = True,
) -> RegionSample:
    """Bring one RGB image and its regions to the model's sizes; boxes and masks are in the pixels
    of `image`."""
    size = image.height, image.width
    picture = image if view.resize == "pil" else pixels(image)
    grid = view.image_px // view.stride
    boxes = torch.tensor([r.box for r in regions], dtype=torch.float64).reshape(len(regions), 4)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    grids = None
    if masks:
        found = [r.mask for r in regions if r.mask is not None]
        stacked = np.stack(found) if found else np.zeros((0, *size), dtype=bool)
        grids = masks_to_grid(torch.from_numpy(stacked), grid, antialias=view.antialias)
    crops = None
    if view.crop_px is not None:
        windows = [crop_window(r.box, size, view.context if r.is_thing else 1.0) for r in regions]
        crops = cut_crops(picture, windows, view.crop_px)
    return RegionSample(
        image=T.letterbox(picture, view.image_px),
        boxes=(boxes / max(size)).float(),
        labels=torch.tensor([r.label for r in regions], dtype=torch.int64),
        areas=areas.float(),
        is_thing=torch.tensor([r.is_thing for r in regions], dtype=torch.bool),
        masks=grids,
        crops=crops,
        image_id=image_id,
    )


def empty_region_sample(
    view: RegionView, image_id: int, error: str, *, masks: bool = True
) -> RegionSample:
    """Black image without regions, in place of one that cannot be read: it adds nothing to any
    metric."""
    black = Image.new("RGB", (view.image_px, view.image_px))
    sample = make_region_sample(black, [], view, image_id=image_id, masks=masks)
    return RegionSample(**{**vars(sample), "error": error})


class _RegionDataset(Dataset, ABC):
    """What the two readers share: sizes of the view, size filter, skipping. `_regions` returns one
    image's regions."""

    def __init__(
        self,
        images_dir: str | Path,
        images: Sequence[tuple[Key, ImageRecord]],
        categories: CategoryTable,
        view: RegionView,
        rules: RegionRules,
        *,
        skipped: SkipReport,
        on_error: str,
        masks: bool = True,
    ):
        if not Path(images_dir).is_dir():
            raise FileNotFoundError(
                f"no image folder {images_dir}: give the folder that holds the image files"
            )
        self.images_dir = Path(images_dir)
        self.keys = [key for key, _ in images]
        self.images = [image for _, image in images]
        self.view, self.rules = view, rules
        self.on_error, self.skipped = on_error, skipped
        self.with_masks = masks

        self.label_of = categories.label_of
        self.category_ids = list(categories.ids)
        self.class_names: list[str] = list(categories.names)
        self.class_is_thing: list[bool] = list(categories.is_thing)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> RegionSample:
        record = self.images[i]
        try:
            path = locate(self.images_dir, record.name)
            opened = open_image(path, str(path))
            warning = check_frame(opened, record.size, str(path))
            if warning is not None:
                self.skipped.add(warning)
            image = load_rgb(opened, name=str(path))
            regions = self._regions(self.keys[i], image)
        except BrokenSample as fault:
            if self.on_error == "raise":
                raise
            self.skipped.add(fault)
            return empty_region_sample(self.view, record.id, str(fault), masks=self.with_masks)
        return make_region_sample(
            image, regions, self.view, image_id=record.id, masks=self.with_masks
        )

    @abstractmethod
    def _regions(self, key: Key, image: Image.Image) -> list[Region]: ...

    def _report(self, fault: BrokenSample) -> None:
        reporter(self.skipped, self.on_error)(fault)

    def _counted(self, records: Sequence[CrowdRecord]) -> Sequence[CrowdRecord]:
        """Return the first `max_regions` records, without crowds when they are skipped."""
        listed = records[: self.rules.max_regions]
        return [r for r in listed if self.rules.crowd == "keep" or not r.is_crowd]

    def _in_range(self, box: Sequence[float]) -> bool:
        area = (box[2] - box[0]) * (box[3] - box[1])
        low, high = self.rules.area_px
        return low**2 <= area <= high**2


class PanopticRegions(_RegionDataset):
    """COCO panoptic segments, one item for each annotated image.

    A thing's box is that of its annotation, a stuff segment's box surrounds its mask. Segments
    whose box is smaller than 8^2 or larger than 1024^2 original pixels are left out. Labels number
    the sorted category ids. Thing crops are 1.5 boxes wide, stuff crops tight. Records that
    contradict the png or each other are left out, counted and named in `skipped`: see
    `clim_data.annotations.panoptic`.

    Args:
        images_dir, panoptic_json, panoptic_dir: COCO files; the png of an image is the "file_name"
            of its annotation.
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
        images_dir: str | Path,
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

    def _regions(self, key: Key, image: Image.Image) -> list[Region]:
        record = self.records.annotations[key]
        path = inside(self.panoptic_dir, record.png)
        ids = read_segment_ids(path, str(path))
        if ids.shape != (image.height, image.width):
            raise BrokenSample(
                "size mismatch", str(path), f"{ids.shape} is not the image's {image.size[::-1]}"
            )

        regions = []
        for segment in self._counted(record.segments):
            mask = ids == segment.id
            try:
                around = check_segment_mask(segment, mask, str(path))
            except BrokenSample as fault:
                self._report(fault)
                continue
            box = segment.box if segment.box is not None else self._box_of_stuff(around)
            if self._in_range(box):
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

    Arguments, item and size filter are those of `PanopticRegions`; the box is the annotation's, the
    mask its polygons or RLE. LVIS images are found by the end of their "coco_url". Annotations that
    the rules of `clim_data.annotations.records` leave out are counted and named in `skipped`.

    Args:
        masks: False for files without segmentations (`RegionSample.masks` is then None).

    Raises:
        FileNotFoundError, ValueError: files are missing, or there is no segmentation while `masks`
            is True.
    """

    def __init__(
        self,
        images_dir: str | Path,
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
        self.records = CocoRecords.read(instances_json, on_error=on_error)
        if masks:
            self.records.check_segmentations(on_error)
        super().__init__(
            images_dir,
            list(self.records.annotated_images()),
            self.records.labels,
            view,
            rules,
            skipped=self.records.faults,
            on_error=on_error,
            masks=masks,
        )

    def _regions(self, key: Key, image: Image.Image) -> list[Region]:
        size = image.height, image.width
        regions = []
        for record in self._counted(self.records.boxes_of(key)):
            try:
                # A file without sizes has its boxes and masks checked here.
                box = record.box
                if self.records.images[key].size is None:
                    box, _ = check_box(record.fields["bbox"], size, record.name)
                if not self._in_range(box):
                    continue
                mask = None
                if self.with_masks:
                    segmentation = record.fields.get("segmentation")
                    mask = decode_segmentation(segmentation, *size, record.name)
            except BrokenSample as fault:
                self._report(fault)
                continue
            regions.append(Region(box, record.label, True, mask))
        return regions
