"""The lists that annotations point to, images and categories, as checked types.

A fault in these lists that makes a pointer mean two things (an id or a name twice, ids of two
types) is refused for the whole file, because no pointer to it could be trusted. An image that is
unusable by itself is skipped, counted and named.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from clim_data.annotations.coco import read_annotations
from clim_data.annotations.ids import Key, first_repeated, id_key, keys_of, record_name, shorten
from clim_data.faults import BrokenSample
from clim_data.files.names import clean_name, image_file_name, leads_out
from clim_data.files.text import composed, plain_text

OF_AN_IMAGE = ("id", "file_name", "coco_url", "height", "width")


# Letters, digits and "_-." in parts that begin with none of ".-": nothing to clean or to refuse.
_PLAIN_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)*")


class ImageRecord(NamedTuple):
    """An image of an annotation file.

    id: as the file has it. name: of the image's file below its folder, with "/" between folders.
    size: (height, width) in pixels, None where the file gives none.
    """

    id: Any
    name: str
    size: tuple[int, int] | None


@dataclass(frozen=True)
class ImageTable(Mapping[Key, ImageRecord]):
    """The usable images of a file by key (`ids.id_key` of their id), in the order of the file.

    refused: keys of the skipped images; annotations that point to them are not named again.
    """

    file: str
    images: Mapping[Key, ImageRecord]
    refused: frozenset[Key]

    @classmethod
    def of(
        cls, records: Sequence[Any], file: str, report: Callable[[BrokenSample], None]
    ) -> "ImageTable":
        """Check the list "images".

        Args:
            records: the objects of the list.
            file: name of the file, for errors.
            report: called with the fault of each skipped image.

        Raises:
            ValueError: two images have one id or one file name, or ids are of two types.
        """
        keys = keys_of(records, "image", file)
        if (twice := first_repeated(keys)) is not None:
            names = [_shown_name(r) for key, r in zip(keys, records) if key == twice]
            raise ValueError(
                f"{file}: two images have one id, {twice!r} ({' and '.join(names[:2])}): give "
                "every image an id of its own"
            )

        images: dict[Key, ImageRecord] = {}
        refused = []
        for place, (key, record) in enumerate(zip(keys, records)):
            try:
                images[key] = _image(record)
            except BrokenSample as fault:
                name = record_name(file, "image", place, record)
                report(BrokenSample(fault.reason, fault.name or name, fault.detail))
                refused.append(key)

        name_twice = first_repeated(image.name for image in images.values())
        if name_twice is not None:
            owners = [repr(image.id) for image in images.values() if image.name == name_twice]
            raise ValueError(
                f"{file}: images {' and '.join(owners[:2])} are one file, {name_twice}: give them "
                "distinct names, or one id"
            )
        return cls(file, images, frozenset(refused))

    def __getitem__(self, key: Key) -> ImageRecord:
        return self.images[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def find(self, annotation: Mapping[str, Any], name: str = "") -> Key | None:
        """Return the key of the image that an annotation belongs to, None for a refused image.

        Raises:
            BrokenSample: the file has no such image.
        """
        given = annotation.get("image_id")
        key = given if type(given) is int else id_key(given)
        if key is not None and key in self.images:
            return key
        if key is not None and key in self.refused:
            return None
        raise BrokenSample("box without image", name, self._no_image(given, key))

    def _no_image(self, given: Any, key: Key | None) -> str:
        kinds = {int: "numbers", str: "texts"}
        own = next((type(own) for own in (*self.images, *self.refused)), None)
        if own is not None and type(key) is not own:
            return f"image ids are {kinds[own]}, image_id is {shorten(given)}"
        return f"image_id {shorten(given)} is no image of the file"


def slim_image(record: Any) -> Any:
    """Return the fields of an image record that `ImageTable` reads."""
    if not isinstance(record, dict):
        return record
    return {field: record[field] for field in OF_AN_IMAGE if field in record}


def with_sizes(table: ImageTable, report: Callable[[BrokenSample], None]) -> ImageTable:
    """Return the images whose size the file gives; the others are reported.

    Raises:
        ValueError: no image has a size.
    """
    sized = {key: image for key, image in table.items() if image.size is not None}
    if table and not sized:
        raise ValueError(f"{table.file}: the images have no height and width: add them, in pixels")
    for key in table.keys() - sized.keys():
        name = f"{table.file}, image {table[key].name}"
        report(BrokenSample("no image size", name, "no height and width: add them, in pixels"))
    return ImageTable(table.file, sized, table.refused | (table.keys() - sized.keys()))


def _image(record: dict) -> ImageRecord:
    return ImageRecord(record["id"], _name(record), _size(record))


def _name(record: dict) -> str:
    given = image_file_name(record)
    if _PLAIN_NAME.fullmatch(given):
        return given
    if leads_out(given):
        raise BrokenSample(
            "path outside the folder", given, f"image {record['id']}: give a name below the folder"
        )
    return clean_name(given)


def _size(record: dict) -> tuple[int, int] | None:
    """Return (height, width), None when the record gives neither; BrokenSample for a bad one."""
    height, width = record.get("height"), record.get("width")
    if type(height) is int and type(width) is int and height > 0 and width > 0:
        return height, width
    if height is None and width is None:
        return None
    sides = id_key(height), id_key(width)  # whole numbers in any spelling
    if not all(isinstance(side, int) and side > 0 for side in sides):
        detail = f"height {shorten(height)}, width {shorten(width)}: give whole numbers of pixels"
        raise BrokenSample("bad image size", "", detail)
    return int(sides[0] or 0), int(sides[1] or 0)


def _shown_name(record: Mapping[str, Any]) -> str:
    return str(record.get("file_name") or record.get("coco_url"))


@dataclass(frozen=True)
class CategoryTable:
    """The categories of a file, in the order of their ids, which is the order of the labels.

    ids: as the file has them. names: each once. is_thing: False for stuff. label_of: by key.
    frequencies: LVIS's "f", "c" or "r" (frequent, common, rare), "" where the file says nothing.
    image_counts: LVIS's number of training images of each class, 0 where the file says nothing.
    """

    ids: tuple[Any, ...]
    names: tuple[str, ...]
    is_thing: tuple[bool, ...]
    label_of: Mapping[Key, int]
    frequencies: tuple[str, ...] = ()
    image_counts: tuple[int, ...] = ()

    @classmethod
    def of(cls, records: Sequence[Any], file: str) -> "CategoryTable":
        """Check the list "categories".

        Raises:
            ValueError: an id or a name occurs twice, a category has no name, or ids are of two
                types.
        """
        keys = keys_of(records, "category", file)
        if (twice := first_repeated(keys)) is not None:
            names = [f'"{r.get("name")}"' for key, r in zip(keys, records) if key == twice]
            raise ValueError(
                f"{file}: category id {twice!r} is there twice ({', '.join(names)}): give every "
                "category an id of its own"
            )

        ordered = sorted(zip(keys, records), key=lambda pair: pair[0])
        names = [_category_name(record, file) for _, record in ordered]
        spellings = [composed(name) for name in names]
        if (name := first_repeated(spellings)) is not None:
            ids = [str(record["id"]) for (_, record), own in zip(ordered, spellings) if own == name]
            raise ValueError(
                f'{file}: two categories are named "{name}" (ids {" and ".join(ids)}): join them'
            )
        return cls(
            tuple(record["id"] for _, record in ordered),
            tuple(names),
            tuple(flag(record.get("isthing", 1), "isthing", file) for _, record in ordered),
            {key: label for label, (key, _) in enumerate(ordered)},
            tuple(_frequency(record, file) for _, record in ordered),
            tuple(_image_count(record, file) for _, record in ordered),
        )

    def label(self, annotation: Mapping[str, Any], name: str = "") -> int:
        """Return the label of an annotation; BrokenSample when its category is unknown."""
        given = annotation.get("category_id")
        key = given if type(given) is int else id_key(given)
        label = None if key is None else self.label_of.get(key)
        if label is None:
            raise BrokenSample("unknown category", name, f"category_id {shorten(given)}")
        return label


def read_categories(path: str | Path) -> CategoryTable:
    """Read and check the list "categories" of a COCO-style file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not json, no categories, or the list is refused (see `CategoryTable.of`).
    """
    records = read_annotations(path, "categories")["categories"]
    if not records:
        raise ValueError(f"{path} has no categories: pass a COCO-style annotation file")
    return CategoryTable.of(records, Path(path).name)


def _category_name(record: Mapping[str, Any], file: str) -> str:
    name = record.get("name")
    if not isinstance(name, str) or not plain_text(name):
        raise ValueError(f"{file}: category {record['id']!r} has no name: give it one")
    return plain_text(name)


def _frequency(record: Mapping[str, Any], file: str) -> str:
    value = record.get("frequency") or ""
    if value not in ("", "f", "c", "r"):
        raise ValueError(
            f'{file}: category {record["id"]!r} has frequency {shorten(value)}: use LVIS\'s "f", '
            '"c" or "r", or leave it out'
        )
    return str(value)


def _image_count(record: Mapping[str, Any], file: str) -> int:
    value = record.get("image_count") or 0
    if type(value) is not int or value < 0:
        raise ValueError(
            f"{file}: category {record['id']!r} has image_count {shorten(value)}: give a whole "
            "number, or leave it out"
        )
    return value


def flag(value: Any, field: str, name: str = "") -> bool:
    """Return the truth of a field that is 0 or 1, also as a text or a truth value; None is 0.

    Raises:
        BrokenSample: it is something else.
    """
    if value is None or value == 0 or value in ("0", ""):
        return False
    if value in (1, "1"):
        return True
    raise BrokenSample("bad flag", name, f"{field} is {shorten(value)}, neither 0 nor 1")


def check_ids_meet(without_image: int, total: int, file: str, table: Iterable[Key]) -> None:
    """Refuse a file in which no annotation belongs to an image, for example as ids differ in type.

    Raises:
        ValueError: all `total` annotations are without an image, and there are some.
    """
    if total and without_image == total:
        first = next(iter(table), "none")
        raise ValueError(
            f"no annotation of {file} belongs to an image of it (the first image has id "
            f"{first!r}): give image_id the ids of the images"
        )
