"""Open-vocabulary splits of the official COCO and LVIS annotations: training on base classes,
validation on all.

OV-COCO (Bansal et al. 2018, arXiv 1804.04340; with captions Zareian et al. 2021, arXiv 2011.10678):
48 base and 17 novel of the 80 classes. OV-LVIS (Gu et al. 2021, arXiv 2104.13921): the 866 frequent
and common classes are base, the 337 rare ones novel.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from clim_data.annotations.box_rules import is_four_numbers, is_usable_box
from clim_data.annotations.ids import Key, id_key, key_of, keys_of
from clim_data.annotations.records import BoxPass
from clim_data.annotations.tables import CategoryTable, ImageTable, flag
from clim_data.faults import BrokenSample, SkipReport
from clim_data.files.json_stream import stream_json, write_coco

_BASE = """
person, bicycle, car, motorcycle, train, truck, boat, bench, bird, horse, sheep, bear, zebra,
giraffe, backpack, handbag, suitcase, frisbee, skis, kite, surfboard, bottle, fork, spoon, bowl,
banana, apple, sandwich, orange, broccoli, carrot, pizza, donut, chair, bed, toilet, tv, laptop,
mouse, remote, microwave, oven, toaster, refrigerator, book, clock, vase, toothbrush
"""
_NOVEL = """
airplane, bus, cat, dog, cow, elephant, umbrella, tie, snowboard, skateboard, cup, knife, cake,
couch, keyboard, sink, scissors
"""
COCO_BASE = tuple(name.strip() for name in _BASE.split(","))
COCO_NOVEL = tuple(name.strip() for name in _NOVEL.split(","))
COUNTS = {"ov-coco": (48, 17), "ov-lvis": (866, 337)}
_LVIS_SIDE = {"f": "base", "c": "base", "r": "novel"}
_CLASS_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")


@dataclass(frozen=True)
class SplitReport:
    """The result: the file, its classes (base, novel), images, boxes (base, novel), skipped images,
    and unusable records."""

    path: Path
    classes: tuple[int, int]
    images: int
    boxes: tuple[int, int]
    left_out: int
    skipped: SkipReport

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.images:,} images, {self.boxes[0]:,} boxes of {self.classes[0]} "
            "base classes, "
            f"{self.boxes[1]:,} of {self.classes[1]} novel classes; {self.left_out:,} images left "
            "out"
        )


def write_ov_split(
    kind: str,
    annotations: str | Path,
    output: str | Path,
    *,
    classes: str = "base",
    keep_empty: bool = False,
    allow_partial: bool = False,
) -> SplitReport:
    """Write the part of an official annotation file that one side of a split needs, as a COCO json.

    Category ids, image ids and annotations stay as they are. Classes come in the order of their
    ids, each with "split": "base" or "novel". LVIS's lists of absent and of not exhaustively
    annotated classes keep the written classes only. The annotations are streamed, twice; the output
    appears when it is whole.

    Args:
        kind: "ov-coco" for an instances file of COCO, "ov-lvis" for LVIS v1.
        classes: "base" for training, "all" for validation.
        keep_empty: keep images that have no box of the written classes. Validation on LVIS always
            does: an image may say which classes are absent from it.
        allow_partial: accept a file that has not all classes of the split.

    Raises:
        FileNotFoundError, ValueError: no such file, not the official classes, or an option is not
            known.
    """
    _check_options(kind, classes, Path(annotations), Path(output))
    found = _survey(annotations)
    skipped = SkipReport()
    images = ImageTable.of(found.images, Path(annotations).name, skipped.add)
    categories = CategoryTable.of(found.categories, Path(annotations).name)
    side = _sides(kind, found.categories)
    counts = _count_sides(kind, side, annotations, allow_partial=allow_partial)

    written = {key for key, name in side.items() if classes == "all" or name == "base"}
    with_box = found.images_with(written, images)
    if not with_box:
        raise ValueError(
            f"{annotations} has no box of the classes of {kind}: give an instances file"
        )
    keep_empty = keep_empty or (kind, classes) == ("ov-lvis", "all")
    wanted = images.keys() if keep_empty else images.keys() & with_box
    chosen = _stream_images(found.images, wanted, written)

    boxes: Counter[str] = Counter()
    checked = BoxPass(images, categories, skipped.add)
    content = {
        **found.others,
        "images": chosen,
        "annotations": _usable(annotations, checked, side, written, boxes),
        "categories": _category_records(found.categories, side, written),
    }
    write_coco(output, content)
    number = (counts[0], counts[1] if classes == "all" else 0)
    left_out = len(found.images) - len(chosen)
    totals = boxes["base"], boxes["novel"]
    return SplitReport(Path(output), number, len(chosen), totals, left_out, skipped)


def _check_options(kind: str, classes: str, annotations: Path, output: Path) -> None:
    if kind not in COUNTS or classes not in ("base", "all"):
        raise ValueError(
            f'kind={kind!r} classes={classes!r}: use one of {sorted(COUNTS)}, and "base" or "all"'
        )
    if output.resolve() == annotations.resolve():
        raise ValueError(f"{output} is the annotation file itself: give another output")


def _stream_images(images: list[dict], wanted: Set[Key], written: set[Key]) -> list[dict]:
    """Return the wanted images; their lists of classes name the written ones only."""
    chosen = []
    for image in images:
        if key_of(image) not in wanted:
            continue
        lists = {}
        for name in _CLASS_LISTS:
            if name in image:
                lists[name] = [i for i in image[name] if id_key(i) in written]
        chosen.append(image | lists)
    return chosen


def _usable(
    path: str | Path,
    checked: BoxPass,
    side: Mapping[Key, str],
    written: set[Key],
    boxes: Counter[str],
) -> Iterator[dict]:
    """Yield the usable annotations of the written classes as they are, and count their sides."""
    place = -1
    for name, annotation in _items(path, "writing"):
        if name != "annotations":
            continue
        place += 1
        if checked.check(place, annotation) is None:
            continue
        category = id_key(annotation["category_id"])
        if category in written:
            boxes[side[category]] += 1
            yield annotation
    checked.finish()


def _category_records(
    categories: list[dict], side: Mapping[Key, str], written: set[Key]
) -> list[dict]:
    chosen = []
    for category in categories:
        key = key_of(category)
        if key in written:
            chosen.append(category | {"split": side[key]})
    return chosen


@dataclass
class _Survey:
    """A file without the bulk of its annotations: image and category of each, by number, and its
    box; everything else as it is."""

    images: list[dict] = field(default_factory=list)
    categories: list[dict] = field(default_factory=list)
    owners: array = field(default_factory=lambda: array("q"))
    classes: array = field(default_factory=lambda: array("q"))
    boxes: array = field(default_factory=lambda: array("d"))
    numbers: dict[Key, int] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)

    def add_annotation(self, annotation: Any) -> None:
        """Note the image, category and box of an annotation that could be usable."""
        if not isinstance(annotation, dict):
            return
        keys = id_key(annotation.get("image_id")), id_key(annotation.get("category_id"))
        if keys[0] is None or keys[1] is None:
            return
        bbox, is_crowd = annotation.get("bbox"), annotation.get("iscrowd")
        if not is_four_numbers(bbox):
            return
        try:
            box = array("d", bbox)
            if is_crowd not in (0, None):
                flag(is_crowd, "iscrowd")
        except (BrokenSample, OverflowError):  # whole numbers of any length are valid json
            return

        self.boxes.extend(box)
        self.owners.append(self.numbers.setdefault(keys[0], len(self.numbers)))
        self.classes.append(self.numbers.setdefault(keys[1], len(self.numbers)))

    def images_with(self, categories: set[Key], images: ImageTable) -> set[Key]:
        """Return the keys of the images that have a usable box of one of the categories."""
        wanted = [self.numbers[key] for key in categories if key in self.numbers]
        keys = list(self.numbers)
        found: set[Key] = set()
        for place in np.flatnonzero(np.isin(np.array(self.classes), wanted)).tolist():
            key = keys[self.owners[place]]
            if key not in found and key in images:
                box = self.boxes[4 * place : 4 * place + 4].tolist()
                if is_usable_box(box, images[key].size):
                    found.add(key)
        return found


def _survey(path: str | Path) -> _Survey:
    found = _Survey()
    for name, item in _items(path, "reading"):
        if name == "annotations":
            found.add_annotation(item)
        elif name == "images":
            found.images.append(item)
        elif name == "categories":
            found.categories.append(item)
        elif name == "licenses":
            found.others.setdefault(name, []).append(item)
        elif name == "info":
            found.others[name] = item
    keys = keys_of(found.categories, "category", Path(path).name)
    ordered = sorted(zip(keys, found.categories), key=lambda pair: pair[0])
    found.categories = [category for _, category in ordered]
    return found


def _items(path: str | Path, what: str) -> Iterator[tuple[str, Any]]:
    bar = f"{what} {Path(path).name}"
    return tqdm(stream_json(path), desc=bar, unit="item", unit_scale=True, delay=2, leave=False)


def _sides(kind: str, categories: list[dict]) -> dict[Key, str]:
    """Return the side, "base" or "novel", of each category that belongs to the split, by key."""
    names = dict.fromkeys(COCO_BASE, "base") | dict.fromkeys(COCO_NOVEL, "novel")
    side: dict[Key, str] = {}
    for category in categories:
        if kind == "ov-coco":
            of = names.get(category.get("name", ""))
        else:
            of = _LVIS_SIDE.get(category.get("frequency", ""))
        if of is not None:
            side[key_of(category)] = of
    return side


def _count_sides(
    kind: str, side: Mapping[Key, str], path: str | Path, *, allow_partial: bool
) -> tuple[int, int]:
    """Return the number of base and of novel classes.

    Raises:
        ValueError: they are not those of the split, and `allow_partial` does not accept that.
    """
    names = Counter(side.values())
    counts, official = (names["base"], names["novel"]), COUNTS[kind]
    if counts == official or allow_partial:
        return counts
    stem, end = {"ov-coco": ("instances_", "2017.json"), "ov-lvis": ("lvis_v1_", ".json")}[kind]
    raise ValueError(
        f"{path} has {counts[0]} of the {official[0]} base and {counts[1]} of the {official[1]} "
        f"novel classes of {kind}: give the official {stem}train{end} or {stem}val{end}, or "
        "--allow-partial for a subset of it"
    )
