"""Referring expressions as items to read or to pack: references joined with their annotations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clim_data.annotations.ids import Key, id_key, record_name
from clim_data.annotations.records import BoxPass
from clim_data.annotations.refer_files import (
    ReferRecords,
    refs_of_split,
    sentences_of,
    with_own_ids,
)
from clim_data.annotations.tables import CategoryTable, ImageRecord, ImageTable
from clim_data.faults import BrokenSample, SampleWarning
from clim_data.files.json_stream import stream_json
from clim_data.files.names import inside
from clim_data.pixels.masks import join_segmentations
from clim_data.pixels.segmentations import BAD, EMPTY, usable_segmentation
from clim_data.sources.items import PackItem, PackList

_NO_MASK = (BAD, EMPTY, "size mismatch")


def check_expression_options(text: str, bad_masks: str) -> None:
    """Raise ValueError for an unknown option of `expression_items`."""
    if text not in ("raw", "sent"):
        raise ValueError(f'text={text!r} is not known: use "raw" (as typed) or "sent" (cleaned)')
    if bad_masks not in ("skip", "empty"):
        raise ValueError(f'bad_masks={bad_masks!r} is not known: use "skip" or "empty"')


def expression_items(
    images_dir: str | Path,
    refs: str | Path,
    instances_json: str | Path,
    *,
    split: str,
    text: str = "raw",
    bad_masks: str = "skip",
) -> PackList:
    """List the images of a split with their objects and sentences, to read or to pack, in the order
    of the file.

    When two references share an annotation it is one object with the sentences of both, the later
    reference's first. Skipped records are items with a fault.

    Args:
        images_dir, refs, instances_json, split: as in `ReferringExpressions`.
        text, bad_masks: as in `ExpressionRules`.

    Raises:
        FileNotFoundError, ValueError: a file is missing or something else, the split is unknown, an
            option is illegal.
    """
    check_expression_options(text, bad_masks)
    records = ReferRecords.read(refs)
    chosen = refs_of_split(records.refs, split)
    left_out = list(records.faults)
    instances = _Instances.read(instances_json, chosen, left_out)

    groups: dict[Key, dict[Key, dict]] = {}
    for ref in chosen:
        sentences, faults = sentences_of(ref, text)
        left_out += faults
        if not sentences:
            continue
        try:
            segmentation = instances.joined_segmentation(ref, left_out)
        except BrokenSample as fault:
            left_out.append(fault)
            if fault.reason not in _NO_MASK or bad_masks == "skip":
                continue
            segmentation = []

        objects = groups.setdefault(ref["image_id"], {})
        target = objects.setdefault(ref["target"], _target(ref, segmentation))
        if target.get("annotations", [ref["target"]]) != list(ref["ann_ids"]):
            detail = f"another reference of the image with the id {ref['target']!r} means other"
            left_out.append(BrokenSample("reference twice", ref["name"], f"{detail} annotations"))
            continue
        own = with_own_ids(sentences, target["sentences"])
        target["sentences"] = [*own, *target["sentences"]]

    items = []
    for image, objects in groups.items():
        items.append(_item(images_dir, instances.images[image], list(objects.values())))
    for unusable in left_out:
        reason = unusable.reason, unusable.name, unusable.detail
        items.append(PackItem(unusable.name, str(images_dir), "", {}, {}, reason))
    return PackList("refcoco", items, {"split": split})


def _raise(fault: BrokenSample) -> None:
    """Raise a fault; a clipped box is no fault where only segmentations count."""
    if not isinstance(fault, SampleWarning):
        raise fault


class _Instances:
    """The annotations that references point to, checked."""

    def __init__(
        self, images: ImageTable, annotations: Mapping[Key, tuple[int, dict]], boxes: BoxPass
    ):
        self.images, self.annotations, self.boxes = images, annotations, boxes

    @classmethod
    def read(
        cls, path: str | Path, refs: Sequence[dict], left_out: list[BrokenSample]
    ) -> "_Instances":
        """Read the images and annotations of an instances file that `refs` need.

        Raises:
            FileNotFoundError, ValueError: no such file, or no COCO file; two annotations that are
                needed have one id.
        """
        file = Path(path).name
        image_keys = {ref["image_id"] for ref in refs}
        annotation_keys = {key for ref in refs for key in ref["ann_ids"]}
        images: list[Any] = []
        categories: list[Any] = []
        annotations: dict[Key, tuple[int, dict]] = {}
        place = -1
        for table, item in stream_json(path):
            key = id_key(item.get("id")) if isinstance(item, dict) else None
            if table == "images" and key in image_keys:
                images.append(item)
            elif table == "categories":
                categories.append(item)
            elif table == "annotations":
                place += 1
                if key is None or key not in annotation_keys:
                    continue
                if key in annotations:
                    raise ValueError(
                        f"{file}: two annotations have one id, {key!r}, which references point to: "
                        "give every annotation an id of its own"
                    )
                annotations[key] = place, item

        table_of_images = ImageTable.of(images, file, left_out.append)
        names = CategoryTable.of(categories, file) if categories else None
        boxes = BoxPass(table_of_images, names, _raise, need_box=False)
        return cls(table_of_images, annotations, boxes)

    def joined_segmentation(self, ref: dict, left_out: list[BrokenSample]) -> list | dict:
        """Return the segmentation of all annotations that a reference means, [] of none.

        Args:
            left_out: receives a fault for each annotation with polygons without an area.

        Raises:
            BrokenSample: an annotation or the image is missing or cannot be used.
        """
        file, image = self.boxes.images.file, self.images.get(ref["image_id"])
        if image is None or image.size is None:
            detail = f"image {ref['image_id']!r} is not in {file}, or without a size"
            raise BrokenSample("unknown image", ref["name"], detail)
        parts = [
            self._segmentation(key, ref, image.size, left_out=left_out) for key in ref["ann_ids"]
        ]
        return join_segmentations(parts, image.size, ref["name"])

    def _segmentation(
        self, key: Key, ref: dict, size: tuple[int, int], *, left_out: list[BrokenSample]
    ) -> list | dict:
        """Return the segmentation of one annotation: run lengths as they are, or its polygons."""
        file = self.boxes.images.file
        if key not in self.annotations:
            detail = f"annotation {key!r} is not in {file}"
            raise BrokenSample("unknown annotation", ref["name"], detail)

        place, annotation = self.annotations[key]
        if id_key(annotation.get("image_id")) not in (None, ref["image_id"]):
            detail = f"annotation {key!r} is of image {annotation['image_id']!r}"
            raise BrokenSample("annotation of another image", ref["name"], detail)
        self.boxes.check(place, annotation)
        name = record_name(file, "annotation", place, annotation)
        usable, dropped = usable_segmentation(annotation.get("segmentation"), size, name)
        if dropped:
            left_out.append(BrokenSample("bad polygon", name, f"{dropped} without an area"))
        return usable


def _target(ref: dict, segmentation: list | dict) -> dict[str, Any]:
    """Make the record of a reference's target; a single annotation that is its own name needs no
    list."""
    target = {"id": ref["target"], "segmentation": segmentation, "sentences": []}
    if ref["ann_ids"] != (ref["target"],):
        target["annotations"] = list(ref["ann_ids"])
    return target


def _item(images_dir: str | Path, image: ImageRecord, objects: list[dict]) -> PackItem:
    height, width = image.size or (0, 0)
    name = _name_in(images_dir, image.name)
    image_id = id_key(image.id)
    record = {"image_id": image_id, "file_name": name, "height": height, "width": width}
    key = f"{image_id!s:0>12}"
    return PackItem(key, str(images_dir), name, {**record, "objects": objects}, size=image.size)


def _name_in(images_dir: str | Path, name: str) -> str:
    """Return the name of the image's file: COCO_train2014_000000000009.jpg, or 000000000009.jpg as
    COCO 2017 has it."""
    newer = name.rpartition("_")[2]
    is_missing = newer != name and not inside(images_dir, name).is_file()
    return newer if is_missing and inside(images_dir, newer).is_file() else name
