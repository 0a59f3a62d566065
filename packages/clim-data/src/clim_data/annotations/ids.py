"""Ids of images, categories and annotations: one type in each file, and no id twice.

Converters write numbers as texts or floats ("2", 2.0). Both mean the number, so ids are compared by
`id_key`. Messages and output files have the id of the file.
"""

from collections.abc import Iterable
from typing import Any

from clim_data.faults import BrokenSample

Key = int | str

_MAX_DIGITS = 18  # fits int64


def id_key(value: Any) -> Key | None:
    """Return the key by which ids are compared: an int for every spelling of a whole number, or the
    text.

    None for values that cannot be ids: null, a truth value, a fraction, a list.
    """
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer() and abs(value) < 10**_MAX_DIGITS:
        return int(value)
    if isinstance(value, str) and value.strip():
        text = value.strip()
        digits = text.removeprefix("-")
        if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS:
            return int(text)
        return text
    return None


def keys_of(records: Iterable[Any], what: str, file: str) -> list[Key]:
    """Return the keys of the records of one list, which others point to by their "id".

    Args:
        records: the objects of the list.
        what: what they are, for example "image".
        file: name of the file, for errors.

    Raises:
        ValueError: a record has no id, or the ids are partly numbers, partly texts.
    """
    keys: list[Key] = []
    for place, record in enumerate(records):
        key = id_key(record.get("id")) if isinstance(record, dict) else None
        if key is None:
            raise ValueError(
                f'{file}: {what} {place + 1} has no "id" that is a number or a text: '
                f"{shorten(record)}; give a COCO-style file"
            )
        if keys and type(key) is not type(keys[0]):
            kinds = {int: "numbers", str: "texts"}
            raise ValueError(
                f"{file}: {what} ids are {kinds[type(keys[0])]}, {what} {place + 1} has id "
                f"{record['id']!r}: give all of them ids of one type"
            )
        keys.append(key)
    return keys


def key_of(record: Any) -> Key:
    """Return the key of a record that has an id; ValueError for one that has none."""
    return keys_of([record], "record", "the file")[0]


def first_repeated(values: Iterable[Key]) -> Key | None:
    """Return the first value that occurs twice, or None."""
    seen = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def record_name(
    file: str, what: str, place: int, record: Any, id_field: str = "id", label: str = "id"
) -> str:
    """Name a record by its file, its place in the list (from 0, shown from 1) and its id.

    Args:
        id_field: the field that holds the id.
        label: what the id is called.
    """
    shown = record.get(id_field) if isinstance(record, dict) else None
    return f"{file}, {what} {place + 1} ({label} {shorten(shown)})"


def need_object(record: Any, name: str = "") -> dict:
    """Return a record that is a json object; BrokenSample for null and all other values."""
    if not isinstance(record, dict):
        raise BrokenSample("bad record", name, f"it is {shorten(record)}, not an object")
    return record


def shorten(value: Any, limit: int = 80) -> str:
    """Return the text of a value, cut off when it is long."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
