"""Captions in files: of COCO, of cc3m lists, in tables, and next to the images of a folder.

A caption is a text, or a list of texts. Any other value is a fault that names its place; the name
of a field never becomes a caption.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clim_data.annotations.caption_sheets import SHEETS, read_sheet
from clim_data.annotations.coco import collector_paused, read_annotations
from clim_data.annotations.ids import Key, id_key, need_object, record_name
from clim_data.annotations.tables import ImageTable, check_ids_meet
from clim_data.faults import BrokenSample
from clim_data.files.names import clean_name, is_utf8, printable
from clim_data.files.text import parse_json, plain_text, read_lines, read_text

# Tables of captions that a folder of images may have.
CAPTION_TABLES = ("metadata.jsonl", "metadata.csv", "captions.csv")
CAPTION_FIELDS = ("captions", "caption", "text")

Report = Callable[[BrokenSample], None]

_WITHOUT_IMAGE = ("bad record", "caption without image")
_KINDS = {dict: "an object", list: "a list", bool: "true or false", int: "a number"}


def captions_of(value: Any, where: str, field_name: str = "caption") -> list[str]:
    """Return the captions with text of a value from a json: a text, a list of texts, or null.

    Args:
        value: any value of a json.
        where: file and place, for the error.
        field_name: what the json calls the value, for the error.

    Raises:
        BrokenSample: the value, or an element of the list, is of another kind.
    """
    captions = []
    for text in value if isinstance(value, list) else [value]:
        if text is None:
            continue
        if not isinstance(text, str):
            kind = _KINDS.get(type(text), "a number")
            kind = f"a list with {kind}" if isinstance(value, list) else kind
            detail = f'"{field_name}" is {kind}, not a text or a list of texts'
            raise BrokenSample("bad caption", where, detail)
        if not is_utf8(text):
            detail = f'"{field_name}" holds half a character: {printable(text)}'
            raise BrokenSample("bad caption", where, detail)
        captions.append(plain_text(text))
    return [text for text in captions if text]


def captions_of_images(
    captions_json: str | Path, report: Report | None = None
) -> list[tuple[dict, list[str]]]:
    """Return (image record, captions with text) of every image, in file order.

    Args:
        captions_json: a COCO captions file, or a CC3M-style file, {"images": [{"id", "file_name",
            "captions": [...]}]}.
        report: called with the fault of each skipped image and caption; None raises the first.

    Raises:
        FileNotFoundError, ValueError: no such file, neither layout, or the list of images is
            refused (see `ImageTable.of`).
    """
    with collector_paused():
        record = read_annotations(captions_json, "images")
        file = Path(captions_json).name
        table = ImageTable.of(record["images"], file, report or _raise)
        by_key = {id_key(image["id"]): image for image in record["images"]}
        images = [by_key[key] for key in table]
        if isinstance(record.get("annotations"), list):
            texts = _texts_by_image(record["annotations"], table, report or _raise)
            return [(image, texts.get(key, [])) for key, image in zip(table, images, strict=True)]

    found: list[tuple[dict, list[str]]] = []
    if not all("captions" in image for image in images):
        raise ValueError(
            f'{captions_json} has neither "annotations" nor "captions" in each image: see the '
            "README"
        )
    for image in images:
        where = f"{file}, image {image.get('id')}"
        try:
            found.append((image, captions_of(image["captions"], where, "captions")))
        except BrokenSample as fault:
            (report or _raise)(fault)
            found.append((image, []))
    return found


def _texts_by_image(
    annotations: list[Any], images: ImageTable, report: Report
) -> dict[Key, list[str]]:
    """Return the captions of each image, in file order; unusable records are reported.

    Raises:
        ValueError: no annotation belongs to an image.
    """
    groups: dict[Key, list[str]] = {}
    without_image = 0
    for place, annotation in enumerate(annotations):
        try:
            key = _image_of(annotation, images)
            if key is not None:
                groups.setdefault(key, []).extend(captions_of(annotation.get("caption"), ""))
        except BrokenSample as fault:
            without_image += fault.reason in _WITHOUT_IMAGE
            # The name is made only here: names of a million valid records would take seconds.
            name = record_name(images.file, "annotation", place, annotation)
            report(BrokenSample(fault.reason, name, fault.detail))
    check_ids_meet(without_image, len(annotations), images.file, (*images, *images.refused))
    return groups


def _image_of(annotation: Any, images: ImageTable) -> Key | None:
    """Return the key of the image that a caption belongs to, None for a refused image."""
    record = need_object(annotation)
    try:
        return images.find(record)
    except BrokenSample as fault:
        raise BrokenSample("caption without image", "", fault.detail) from None


def _raise(fault: BrokenSample) -> None:
    raise fault


@dataclass(frozen=True)
class CaptionRows:
    """The captions of a table, by file name.

    name: of the table's file. captions: by cleaned name, all rows of a name together. faults: rows
    that cannot be used.
    """

    name: str
    captions: dict[str, list[str]]
    faults: list[BrokenSample] = field(default_factory=list)


def read_caption_table(path: str | Path) -> CaptionRows:
    """Read captions by file name: a json object {file name: caption or list}, a jsonl, or a csv.

    A line of the jsonl has "file_name" and "text", "caption" or "captions"; the first line of a csv
    or tsv names such columns. Rows that cannot be used are faults, with their line, and do not stop
    the others.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no text, no json object, or a csv without these columns.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no captions file {path}: give a json, jsonl or csv file")
    rows = CaptionRows(path.name, {})
    if path.suffix.lower() in SHEETS:
        for where, name, text in read_sheet(path):
            _add(rows, where, name, "text", text)
        return rows
    if path.suffix.lower() == ".jsonl":
        for number, line in enumerate(_numbered_lines(read_text(path)), 1):
            where = f"{path}, line {number}"
            if not line:
                continue
            try:
                _add(rows, where, *_row(line, where))
            except BrokenSample as fault:
                rows.faults.append(fault)
        return rows

    # Every pair of the object is wanted: of equal names a dict would keep the last.
    layout = f"{path} cannot be used ({{}}): see `folder` in the README for its layout"
    try:
        outermost = parse_json(path.read_bytes(), str(path), pairs=_Pairs)
    except BrokenSample as fault:
        raise ValueError(layout.format(f"{fault.reason}: {fault.detail}")) from None
    if not isinstance(outermost, _Pairs):
        raise ValueError(layout.format("it is no object of captions by file name"))
    for name, value in outermost:
        _add(rows, f"{path}, {printable(name)}", name, "caption", value)
    return rows


class _Pairs(list):
    """The pairs of a json object; also an inner one, which is no list of captions."""


_KINDS[_Pairs] = "an object"


def _numbered_lines(text: str) -> list[str]:
    """All lines of a text, with empty ones, so that their numbers are those of an editor."""
    return [plain_text(line) for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]


def _row(line: str, where: str) -> tuple[Any, str, Any]:
    """(file name, field, value) of one line of a jsonl."""
    record = parse_json(line, where, "bad row")
    if not isinstance(record, dict):
        raise BrokenSample("bad row", where, "it is no json object")
    used = next((key for key in CAPTION_FIELDS if record.get(key) is not None), "text")
    return record.get("file_name"), used, record.get(used)


def _add(rows: CaptionRows, where: str, name: Any, used: str, value: Any) -> None:
    """Add the captions of one row, or its fault; `used` is the field that holds them."""
    try:
        if not isinstance(name, str) or not name:
            raise BrokenSample("bad row", where, f'"file_name" is {name!r}: give a text')
        value = dict(value) if isinstance(value, _Pairs) else value
        texts = rows.captions.setdefault(clean_name(name), [])
        texts += captions_of(value, where, used)
    except BrokenSample as fault:
        rows.faults.append(fault)


def caption_table_in(folder: str | Path) -> Path | None:
    """Find the table of captions of a folder of images; None where there is none.

    Raises:
        ValueError: there are two, and they may differ.
    """
    found = [name for name in CAPTION_TABLES if (Path(folder) / name).is_file()]
    if len(found) > 1:
        raise ValueError(f"{folder} has {' and '.join(found)}: keep one of them")
    return Path(folder) / found[0] if found else None


def captions_beside(image: Path) -> list[str] | None:
    """Return the lines of the txt of the same name next to an image; None if there is no file.

    Raises:
        BrokenSample: the txt is neither UTF-8 nor UTF-16 with its mark; the name is the txt's.
    """
    try:
        return read_lines(image.with_suffix(".txt"), "bad caption")
    except FileNotFoundError:
        return None
