"""Open-vocabulary splits of the official COCO and LVIS annotations: training on base classes,
validation on all.

OV-COCO (Bansal et al. 2018, arXiv 1804.04340; with captions Zareian et al. 2021, arXiv 2011.10678):
48 base and 17 novel of the 80 classes. OV-LVIS (Gu et al. 2021, arXiv 2104.13921): the 866 frequent
and common classes are base, the 337 rare ones novel.
"""

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from clim_data.files.json_stream import stream_json, write_coco

_BASE = """person, bicycle, car, motorcycle, train, truck, boat, bench, bird, horse, sheep, bear, zebra, giraffe,
backpack, handbag, suitcase, frisbee, skis, kite, surfboard, bottle, fork, spoon, bowl, banana, apple, sandwich,
orange, broccoli, carrot, pizza, donut, chair, bed, toilet, tv, laptop, mouse, remote, microwave, oven, toaster,
refrigerator, book, clock, vase, toothbrush"""
_NOVEL = """airplane, bus, cat, dog, cow, elephant, umbrella, tie, snowboard, skateboard, cup, knife, cake, couch,
keyboard, sink, scissors"""
COCO_BASE = tuple(name.strip() for name in _BASE.split(","))
COCO_NOVEL = tuple(name.strip() for name in _NOVEL.split(","))
COUNTS = {"ov-coco": (48, 17), "ov-lvis": (866, 337)}
_LVIS_SIDE = {"f": "base", "c": "base", "r": "novel"}
_CLASS_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")


@dataclass(frozen=True)
class SplitReport:
    """What was written: the file, its classes (base, novel), images, boxes (base, novel); images
    that were left out."""

    path: Path
    classes: tuple[int, int]
    images: int
    boxes: tuple[int, int]
    left_out: int

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
    if kind not in COUNTS or classes not in ("base", "all"):
        raise ValueError(
            f'kind={kind!r} classes={classes!r}: use one of {sorted(COUNTS)}, and "base" or "all"'
        )
    if Path(output).resolve() == Path(annotations).resolve():
        raise ValueError(f"{output} is the annotation file itself: give another output")

    found = _survey(annotations)
    side = _sides(kind, found.categories, annotations)
    sides = list(side.values())
    counts = sides.count("base"), sides.count("novel")
    if counts != COUNTS[kind] and not allow_partial:
        raise ValueError(_not_official(kind, counts, annotations))

    kept = {i for i, name in side.items() if classes == "all" or name == "base"}
    category_ids = np.array(found.category_ids)
    with_box = set(np.array(found.image_ids)[np.isin(category_ids, list(kept))].tolist())
    keep_empty = keep_empty or (kind, classes) == ("ov-lvis", "all")
    images = [
        _with_classes(image, kept)
        for image in found.images
        if keep_empty or image["id"] in with_box
    ]
    if not with_box:
        raise ValueError(
            f"{annotations} has no box of the classes of {kind}: give an instances file"
        )

    record = {
        **found.others,
        "images": images,
        "annotations": _annotations_of(annotations, kept),
        "categories": [c | {"split": side[c["id"]]} for c in found.categories if c["id"] in kept],
    }
    write_coco(output, record)

    written = (counts[0], counts[1] if classes == "all" else 0)
    boxes = tuple(_count_boxes(category_ids, kept, side, name) for name in ("base", "novel"))
    return SplitReport(
        Path(output), written, len(images), (boxes[0], boxes[1]), len(found.images) - len(images)
    )


def _annotations_of(path: str | Path, kept: set[int]) -> Iterator[dict]:
    for name, item in _items(path, "writing"):
        if name == "annotations" and item["category_id"] in kept:
            yield item


def _count_boxes(
    category_ids: np.ndarray, kept: set[int], side: Mapping[int, str], name: str
) -> int:
    """Return how many boxes belong to the written classes of one side."""
    chosen = [category for category in kept if side[category] == name]
    return int(np.isin(category_ids, chosen).sum())


@dataclass
class _Survey:
    """A file without the bulk of its annotations: image and category id of each, everything else as
    it is."""

    images: list[dict] = field(default_factory=list)
    categories: list[dict] = field(default_factory=list)
    image_ids: array = field(default_factory=lambda: array("q"))
    category_ids: array = field(default_factory=lambda: array("q"))
    others: dict[str, Any] = field(default_factory=dict)


def _survey(path: str | Path) -> _Survey:
    found = _Survey()
    try:
        for name, item in _items(path, "reading"):
            if name == "annotations":
                found.image_ids.append(item["image_id"])
                found.category_ids.append(item["category_id"])
            elif name in ("images", "categories"):
                int(item["id"])
                getattr(found, name).append(item)
            elif name == "licenses":
                found.others.setdefault(name, []).append(item)
            elif name == "info":
                found.others[name] = item
    except (KeyError, TypeError) as fault:
        raise ValueError(
            f"{path}: an item of {name!r} is not as in COCO ({fault!r}); give an instances file"
        ) from None
    found.categories.sort(key=lambda category: category["id"])
    return found


def _items(path: str | Path, what: str) -> Iterator[tuple[str, Any]]:
    bar = f"{what} {Path(path).name}"
    return tqdm(stream_json(path), desc=bar, unit="item", unit_scale=True, delay=2, leave=False)


def _sides(kind: str, categories: list[dict], path: str | Path) -> dict[int, str]:
    """Side, "base" or "novel", of each category id that belongs to the split."""
    names = dict.fromkeys(COCO_BASE, "base") | dict.fromkeys(COCO_NOVEL, "novel")
    side: dict[int, str] = {}
    for category in categories:
        of = (
            names.get(category.get("name", ""))
            if kind == "ov-coco"
            else _LVIS_SIDE.get(category.get("frequency", ""))
        )
        if of is not None:
            if category["id"] in side:
                raise ValueError(
                    f"{path} has category id {category['id']} twice: fetch the official file again"
                )
            side[category["id"]] = of
    return side


def _not_official(kind: str, counts: tuple[int, int], path: str | Path) -> str:
    asked = COUNTS[kind]
    stem = {"ov-coco": ("instances_", "2017.json"), "ov-lvis": ("lvis_v1_", ".json")}[kind]
    return (
        f"{path} has {counts[0]} of the {asked[0]} base and {counts[1]} of the {asked[1]} novel "
        f"classes of {kind}: "
        f"give the official {stem[0]}train{stem[1]} or {stem[0]}val{stem[1]}, or --allow-partial "
        "for a subset of it"
    )


def _with_classes(image: dict, kept: set[int]) -> dict:
    lists = {name: [i for i in image[name] if i in kept] for name in _CLASS_LISTS if name in image}
    return image | lists
