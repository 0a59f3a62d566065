"""The annotation file of an evaluation of detections: checked, and with its protocol."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clim_data import COCO_BASE, COCO_NOVEL, BrokenSample
from clim_data.annotations import BoxRecord, CocoRecords, read_annotations

from clim_eval.detection.options import ProtocolOptions, shorten_names
from clim_eval.metrics.detection import check_groups

# The fields of LVIS that each picture has.
LVIS_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")


@dataclass(frozen=True)
class Protocol:
    """A rule of scoring, and its two groups of classes, if it has any."""

    name: str
    base: frozenset[str] = frozenset()
    novel: frozenset[str] = frozenset()

    def group_of(self, category: Mapping[str, Any]) -> str:
        """Return "base", "novel", a frequency of LVIS, or ""."""
        if self.name == "lvis":
            return str(category["frequency"])
        name = category["name"]
        return "base" if name in self.base else "novel" if name in self.novel else ""


@dataclass(frozen=True)
class DetectionTruth:
    """The usable images, annotations and categories of a COCO or LVIS file.

    Attributes:
        path: of the file.
        records: its checked records.
        categories: as the file has them, in the order of their ids.
        lists: the lists of LVIS by image id; empty for other files.
    """

    path: Path
    records: CocoRecords
    categories: list[dict[str, Any]]
    lists: Mapping[Any, Mapping[str, list]]

    @classmethod
    def read(cls, path: Path, *, annotated: bool = True) -> "DetectionTruth":
        """Read and check a file; annotations that cannot be used are named in `records.faults`.

        Args:
            path: of the file.
            annotated: False reads images and categories only.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not json, a list is missing, or the file as a whole is refused.
        """
        lists = ("images", "categories", *(("annotations",) if annotated else ()))
        contents = read_annotations(path, *lists)
        if not annotated:
            contents["annotations"] = []
        if not contents["categories"]:
            raise ValueError(f"{path} has no categories: pass a COCO-style annotation file")
        records = CocoRecords.of(contents, path.name)
        records.check_given_segmentations()
        by_id = {category["id"]: category for category in contents["categories"]}
        categories = [
            {**by_id[number], "name": name}
            for number, name in zip(records.labels.ids, records.labels.names, strict=True)
        ]
        return cls(path, records, categories, _lists_of_lvis(contents["images"], path))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the categories, in the order of their ids."""
        return self.records.labels.names

    @property
    def has_masks(self) -> bool:
        """Whether the first annotation has a segmentation."""
        boxes = next((self.records.boxes_of(key) for key in self._annotated()), ())
        return any(box.fields.get("segmentation") for box in boxes)

    def _annotated(self) -> list[Any]:
        return [key for key in self.records.images if self.records.boxes_of(key)]

    def contents(self, without: Collection[Any] = ()) -> dict[str, Any]:
        """Return the input of the metrics: images, annotations and categories.

        Args:
            without: ids of images that do not count, with their annotations.
        """
        images, annotations = [], []
        for key, image in self.records.images.items():
            if image.id in without:
                continue
            height, width = image.size or (0, 0)
            lists = self.lists.get(image.id, {})
            images.append({"id": image.id, "height": height, "width": width, **lists})
            for box in self.records.boxes_of(key):
                own = {
                    "image_id": image.id,
                    "category_id": self.categories[box.label]["id"],
                    "iscrowd": int(box.is_crowd),
                    "area": _area(box),
                }
                annotations.append({**box.fields, **own})
        return {"images": images, "annotations": annotations, "categories": self.categories}

    def protocol(self, options: ProtocolOptions) -> Protocol:
        """Choose how detections of this file are scored.

        Raises:
            ValueError: the file does not fit the protocol that was asked for.
        """
        is_lvis = len(self.lists) >= len(self.records.images) and all(
            category.get("frequency") in ("r", "c", "f") for category in self.categories
        )

        groups = self._groups(options)
        name = options.protocol
        if name is None:
            name = "lvis" if is_lvis else "coco"
            if groups is not None and not is_lvis:
                name = "fvit" if groups[0] | groups[1] == set(self.names) else "ovdet"

        if name == "lvis":
            if not is_lvis:
                raise ValueError(
                    f"{self.path} is no LVIS file: each image needs {' and '.join(LVIS_LISTS)}, "
                    "each category a frequency r, c or f; choose --protocol coco"
                )
            return Protocol(name)
        if name == "coco":
            return Protocol(name)

        if groups is None:
            raise ValueError(
                f"{self.path} does not say which classes are base and which novel: pass --base "
                "and --novel, or a file of `clim-data ov-split`"
            )
        check_groups(set(self.names), set(groups[0]), set(groups[1]), name)
        return Protocol(name, *groups)

    def _groups(self, options: ProtocolOptions) -> tuple[frozenset[str], frozenset[str]] | None:
        """Return the names of base and novel classes, None if they are unknown."""
        if options.base is not None and options.novel is not None:
            return frozenset(options.base), frozenset(options.novel)
        sides = {category["name"]: str(category.get("split")) for category in self.categories}
        if set(sides.values()) == {"base", "novel"}:
            base = frozenset(name for name, side in sides.items() if side == "base")
            return base, frozenset(sides) - base
        if {*COCO_BASE, *COCO_NOVEL} <= set(self.names):
            return frozenset(COCO_BASE), frozenset(COCO_NOVEL)
        return None

    def category_ids(self, names: Collection[str]) -> list[Any]:
        """Return the category id of each label of a detector, by name; None where there is none.

        Raises:
            ValueError: a category of the file is no class of the detector.
        """
        missing = [name for name in self.names if name not in set(names)]
        if missing:
            raise ValueError(
                f"{self.path} has categories that are no classes of the detector: "
                f"{shorten_names(missing)}; spell them as the file does"
            )
        id_of = {category["name"]: category["id"] for category in self.categories}
        return [id_of.get(name) for name in names]

    def faults(self) -> list[BrokenSample]:
        """Return the unusable records of the file, and its warnings."""
        return [*self.records.faults.faults, *self.records.faults.warnings]


def _area(box: BoxRecord) -> float:
    """Return the area of an annotation, or of its box where the file has none that is a number."""
    area = box.fields.get("area")
    if isinstance(area, int | float) and not isinstance(area, bool) and 0 <= area < math.inf:
        return float(area)
    width, height = box.fields["bbox"][2:]
    return float(width * height)


def _lists_of_lvis(images: Sequence[Any], path: Path) -> dict[Any, Mapping[str, list]]:
    """Return the lists of LVIS by image id; images that have none are left out.

    Raises:
        ValueError: one of them is no list of category ids.
    """
    found: dict[Any, Mapping[str, list]] = {}
    for place, image in enumerate(images):
        if not isinstance(image, dict) or not all(name in image for name in LVIS_LISTS):
            continue
        for name in LVIS_LISTS:
            ids = image[name]
            if not isinstance(ids, list) or not {int, str}.issuperset(map(type, ids)):
                raise ValueError(
                    f"{path}, image {place + 1} (id {image.get('id')}): {name} is "
                    f"{str(ids)[:60]}, not a list of category ids: fetch the file again"
                )
        if isinstance(image.get("id"), int | str):
            found[image["id"]] = {name: image[name] for name in LVIS_LISTS}
    return found
