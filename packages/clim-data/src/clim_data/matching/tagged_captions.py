"""Captions and tags of a json as arrays, and the sample of the sources for each image of the
json."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clim_data.annotations.caption_files import captions_of_images
from clim_data.annotations.ids import id_key
from clim_data.annotations.tables import CategoryTable
from clim_data.faults import BrokenSample
from clim_data.files.names import clean_name, image_file_name, leads_out, printable
from clim_data.matching.box_json import read_lists
from clim_data.matching.boxes import match_samples
from clim_data.sources.store import SampleStore

TAGS = "pos_category_ids"
"""Field of an image record that holds the ids of its tags, as Detic's files have it."""


@dataclass(frozen=True)
class TaggedCaptions:
    """Captions and tags of n images, in the order of the samples of a store.

    captions: of each image, at least one. tags: classes of each image, rising. sizes: int64 (n, 2),
    height and width, or None where the json does not have all of them. num_classes: K.
    """

    captions: tuple[tuple[str, ...], ...]
    tags: tuple[tuple[int, ...], ...]
    sizes: np.ndarray | None
    num_classes: int

    def __len__(self) -> int:
        return len(self.captions)

    def stamp(self) -> str:
        """Return a digest that changes with any caption or tag."""
        digest = hashlib.sha256()
        for texts, tags in zip(self.captions, self.tags, strict=True):
            digest.update(repr((texts, tags)).encode())
        return digest.hexdigest()


def load_tagged_captions(
    path: str | Path, store: SampleStore, class_names: Sequence[str], *, need_tags: bool
) -> TaggedCaptions:
    """Read captions, and tags, for the samples of `store`, and drop samples without them from the
    store.

    Row i of the table is sample i of the store. Images that no source contains, whose captions are
    empty, or whose tags are none of the file's categories are reported to the store.

    Args:
        path: the file of `clim-data tags`, one of Detic's, or, where tags are not needed, COCO's
            captions.
        store: samples without a caption in the file are dropped from it.
        class_names: of the K classes; tags are matched with classes by name, not by id.
        need_tags: whether a file without tags is refused.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds no captions, no tags that are needed, a category that is no class, or
            no image of the sources.
    """
    records = captions_of_images(path, store.report_fault)
    has_tags = any(TAGS in image for image, _ in records)
    if need_tags and not has_tags:
        raise ValueError(
            f'{path} has no tags ("{TAGS}" of its images): make a file with `clim-data tags`, or '
            "train on captions alone"
        )
    label_of = _labels(path, class_names) if need_tags else {}

    rows: dict[str, _Row] = {}
    for image, texts in records:
        try:
            row = _row(image, texts, label_of if need_tags else None, Path(path).name)
        except BrokenSample as fault:
            store.report_fault(fault)
            continue
        if row.name in rows:
            raise ValueError(
                f"{path} names {row.name} twice: put all captions of an image into one record"
            )
        rows[row.name] = row

    matched = match_samples(list(rows), store, path)
    store.keep(matched >= 0)
    by_place = list(rows.values())
    used = [by_place[place] for place in matched[matched >= 0].tolist()]
    sizes = [row.size for row in used if row.size is not None]
    return TaggedCaptions(
        tuple(row.captions for row in used),
        tuple(row.tags for row in used),
        np.array(sizes, dtype=np.int64).reshape(-1, 2) if len(sizes) == len(used) else None,
        len(class_names),
    )


@dataclass(frozen=True)
class _Row:
    """One image of the json."""

    name: str
    captions: tuple[str, ...]
    tags: tuple[int, ...]
    size: tuple[int, int] | None


def _row(
    image: Mapping[str, Any], texts: list[str], label_of: Mapping[Any, int] | None, file: str
) -> _Row:
    """Check the record of an image; `label_of` is None where tags do not count."""
    name = image_file_name(dict(image))
    if leads_out(name):
        raise BrokenSample("path outside the folder", printable(name) or "(empty name)", file)
    if not texts:
        raise BrokenSample("empty caption", name, file)

    tags: set[int] = set()
    if label_of is not None:
        given = image.get(TAGS) or []
        if not isinstance(given, list):
            raise BrokenSample("bad tags", name, f'"{TAGS}" is no list')
        for one in given:
            label = label_of.get(id_key(one))
            if label is None:
                raise BrokenSample("unknown category", name, f"{TAGS} holds {one!r}")
            tags.add(label)

    return _Row(clean_name(name), tuple(texts), tuple(sorted(tags)), _size(image))


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return height and width of a record that has both."""
    height, width = image.get("height"), image.get("width")
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        return None
    return height, width


def _labels(path: str | Path, class_names: Sequence[str]) -> dict[Any, int]:
    """Return id of a category -> label of the class with its name."""
    table = CategoryTable.of(read_lists(path, "categories")["categories"], Path(path).name)
    label_of = {name: label for label, name in enumerate(class_names)}
    unknown = [name for name in table.names if name not in label_of]
    if unknown:
        raise ValueError(
            f"{path} has tags of {unknown[:8]}, which are no classes of the boxes: make it with "
            "`clim-data tags --classes` and the json of the boxes"
        )
    return {key: label_of[table.names[place]] for key, place in table.label_of.items()}
