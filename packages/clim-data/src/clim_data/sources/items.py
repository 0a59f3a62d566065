"""Samples to pack: lists of images with their annotations, from COCO, LVIS and CC3M files and from
folders."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from clim_data.annotations.caption_files import (
    caption_table_in,
    captions_beside,
    captions_of_images,
    read_caption_table,
)
from clim_data.annotations.coco import read_annotations
from clim_data.annotations.ids import Key, key_of
from clim_data.annotations.panoptic import PanopticRecords
from clim_data.annotations.records import CocoRecords
from clim_data.annotations.tables import ImageRecord, ImageTable
from clim_data.faults import BrokenSample, SampleWarning, SkipReport
from clim_data.files.names import IMAGE_SUFFIXES, encode_key, sample_key
from clim_data.sources.captions import captions_of_files
from clim_data.sources.expand import refuse_stray_shard
from clim_data.sources.images import files_of_names
from clim_data.sources.walk import FolderContent, walk_folder

INSTANCE_FIELDS = ("id", "category_id", "bbox", "area", "iscrowd", "segmentation")


@dataclass(frozen=True)
class PackItem:
    """One sample to pack: its key, the image's folder and name in it, and its json.

    `files` has further files by suffix, as (folder, name). `fault` is set if the sample can never
    be packed; it is then reported and skipped. `size` is the (height, width) that annotations in
    pixels need, None for any. `file` is the image below the folder where it lies elsewhere than the
    name says.
    """

    key: str
    folder: str
    name: str
    meta: dict
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    fault: tuple[str, str, str] | None = None
    size: tuple[int, int] | None = None
    file: str | None = None

    def identity(self) -> list:
        """Return the facts that decide the packed bytes, apart from the content of the files.

        The place of the folders does not count.
        """
        return [
            self.key,
            self.name,
            self.meta,
            {k: name for k, (_, name) in self.files.items()},
            self.fault,
        ]


@dataclass(frozen=True)
class PackList:
    """All samples of one pack, in order, and facts about the whole set (such as its categories).

    warnings: about records that are packed nevertheless.
    """

    kind: str
    items: list[PackItem]
    common: dict = field(default_factory=dict)
    warnings: tuple[SampleWarning, ...] = ()


def caption_items(
    images_dir: str | Path, captions_json: str | Path, *, kind: str = "coco-captions"
) -> PackList:
    """List the images of a COCO captions file or a CC3M-style file (`captions` in each image
    record)."""
    faults: list[BrokenSample] = []
    pairs = captions_of_images(captions_json, faults.append)
    file = Path(captions_json).name
    images = ImageTable.of([record for record, _ in pairs], file, faults.append)

    items = []
    for record, texts in sorted(pairs, key=lambda pair: str(pair[0]["id"]).zfill(20)):
        image = images.get(key_of(record))
        if image is not None:
            items.append(_item(images_dir, image, {"captions": texts}))
    return PackList(kind, [*_keyed(_found(items)), *_left_out(images_dir, faults)])


def instance_items(
    images_dir: str | Path,
    instances_json: str | Path,
    *,
    captions_json: Iterable[str | Path] = (),
    kind: str = "coco-instances",
) -> PackList:
    """List the images of a COCO or LVIS instances file with their usable annotations.

    Annotations that the rules of `clim_data.annotations.records` refuse are items with a fault.

    Args:
        captions_json: files that add the captions of the same image ids.
    """
    records = CocoRecords.read(instances_json)
    records.check_given_segmentations()
    captions: dict[Key, list[str]] = {}
    for path in captions_json:
        for record, texts in captions_of_images(path, records.faults.add):
            captions[key_of(record)] = texts

    items = []
    for key, image in sorted(records.images.items()):
        instances = []
        for box in records.boxes_of(key):
            instances.append({k: box.fields[k] for k in INSTANCE_FIELDS if k in box.fields})
        meta: dict = {"instances": instances}
        if captions:
            meta["captions"] = captions.get(key, [])
        items.append(_item(images_dir, image, meta))
    left_out = _left_out(images_dir, records.faults.faults)
    categories = _categories(instances_json)
    warnings = tuple(records.faults.warnings)
    return PackList(kind, [*_keyed(_found(items)), *left_out], {"categories": categories}, warnings)


def panoptic_items(
    images_dir: str | Path, panoptic_json: str | Path, panoptic_dir: str | Path
) -> PackList:
    """List the images of a COCO panoptic file with their usable segments and their png."""
    records = PanopticRecords.read(panoptic_json)
    items = []
    for key, annotation in sorted(records.annotations.items()):
        usable = {"segments_info": [segment.fields for segment in annotation.segments]}
        item = _item(images_dir, records.images[key], usable)
        items.append(replace(item, files={"panoptic.png": (str(panoptic_dir), annotation.png)}))
    left_out = _left_out(images_dir, records.faults.faults)
    categories = _categories(panoptic_json)
    warnings = tuple(records.faults.warnings)
    packed = [*_keyed(_found(items)), *left_out]
    return PackList("coco-panoptic", packed, {"categories": categories}, warnings)


def folder_items(
    folder: str | Path,
    *,
    captions_file: str | Path | None = None,
    written: str | Path | None = None,
) -> PackList:
    """List every jpg, jpeg, png and webp below a folder, with captions.

    Captions come from `captions_file`, or from `metadata.jsonl`, `metadata.csv` or `captions.csv`
    in the folder, or else from a txt of the same name next to each image, one caption per line. A
    captions file is a json object {file name: caption or list}, or has one json object per line
    with "file_name" and "text", "caption" or "captions", or is a csv with such columns.

    Args:
        folder: of the images.
        captions_file: see above.
        written: folder of the shards to write; tars in it may lie below the images.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
        ValueError: there are tars among the images.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {folder}: give the folder that holds the images")
    content = _images_alone(root, written)
    if captions_file is None:
        captions_file = caption_table_in(root)
    table, faults = None, list(content.faults)
    if captions_file is not None:
        rows = read_caption_table(captions_file)
        table, more = captions_of_files(rows, content.images, root)
        faults += more

    items = []
    for name in content.images:
        fault = None
        try:
            texts = captions_beside(root / name) if table is None else table.get(name)
            if not texts:
                missing = "no caption for this image"
                if captions_file is not None and texts is None:
                    missing = f"{Path(captions_file).name} has no row for it"
                raise BrokenSample("empty caption", str(root / name), missing)
        except BrokenSample as error:
            texts, fault = [], (error.reason, error.name, error.detail)
        meta = {"file_name": name, "captions": texts}
        items.append(PackItem(name, str(root), name, meta, {}, fault))
    if not items:
        told = f" ({SkipReport(faults).summary(3)})" if faults else ""
        raise FileNotFoundError(
            f"{folder} holds no {', '.join(IMAGE_SUFFIXES)} file{told}: give the folder with the "
            "images"
        )
    return PackList("folder", [*_keyed(items), *_left_out(root, faults)])


def _images_alone(root: Path, written: str | Path | None) -> FolderContent:
    """List the images of a folder without other shards than those below `written`.

    Raises:
        ValueError: there are others.
    """
    content = walk_folder(root)
    if written is not None:
        own = Path(written).resolve()
        content.shards = [
            one for one in content.shards if own not in (root / one).resolve().parents
        ]
    refuse_stray_shard(root, content)
    return content


def _item(images_dir: str | Path, image: ImageRecord, meta: dict) -> PackItem:
    meta = {"image_id": image.id, **meta}
    if "captions" in meta and not meta["captions"]:
        fault = ("empty caption", f"image {image.id}", "no caption with text")
        return PackItem(str(image.id), str(images_dir), "", meta, {}, fault)
    meta["file_name"] = image.name
    in_pixels = "instances" in meta or "segments_info" in meta
    size = image.size if in_pixels else None
    return PackItem(image.name, str(images_dir), image.name, meta, size=size)


def _found(items: list[PackItem]) -> list[PackItem]:
    """Find the file of each item: a bare name that one file below the folder has means that file.

    The packed sample still has the name of the annotation file, by which records are joined.
    """
    usable = [place for place, item in enumerate(items) if item.fault is None]
    if not usable:
        return items
    names = files_of_names(items[usable[0]].folder, [items[place].name for place in usable])
    found = list(items)
    for place, name in zip(usable, names, strict=True):
        if name != items[place].name:
            found[place] = replace(items[place], file=name)
    return found


def _left_out(images_dir: str | Path, faults: Iterable[BrokenSample]) -> Iterator[PackItem]:
    """Yield the skipped records as items that are reported and not packed."""
    for fault in faults:
        reason = fault.reason, fault.name, fault.detail
        yield PackItem(fault.name, str(images_dir), "", {}, {}, reason)


def _categories(path: str | Path) -> list[dict]:
    """Return the list "categories" as the file has it."""
    return read_annotations(path, "categories")["categories"]


def _keyed(items: list[PackItem]) -> list[PackItem]:
    """Give every sample a key that stands for its name alone: see `sample_key`.

    Where two names differ in their ending only, the endings are part of their keys. Two records of
    one file are numbered, with a sign that no other key holds.
    """
    keys = {item.key: sample_key(item.key) for item in items if item.fault is None}
    counts = Counter(keys.values())
    clash = {name for name, key in keys.items() if counts[key] > 1}
    while clash:
        keys.update((name, encode_key(name)) for name in clash)
        whole = {keys[name] for name in clash}
        # "a.jpg.png" has the key of "a.jpg" with its ending: then it needs its ending, too.
        clash = {
            name
            for name, key in keys.items()
            if key in whole and key != encode_key(name) and name not in clash
        }

    used: Counter[str] = Counter()
    keyed = []
    for item in items:
        if item.fault is not None:
            keyed.append(item)
            continue
        key = keys[item.key]
        used[key] += 1
        number = used[key]
        keyed.append(replace(item, key=key if number == 1 else f"{key}+{number}"))
    return keyed
