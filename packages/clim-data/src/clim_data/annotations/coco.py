"""COCO-style annotation files, read with clear errors."""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause Python's collector of cycles while millions of records are made.

    The records have no cycles, but the collector visits all of them again and again, which takes
    about half of the time of a large file.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_annotations(path: str | Path, *tables: str) -> dict:
    """Parse an annotation json and check that it has the named lists ("images", "annotations",
    ...).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not json (cut off while copying?), or a list is missing.
    """
    path = require_annotation_file(path)
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as fault:
        raise ValueError(
            f"{path} is not valid json ({fault}): fetch it again, it may be cut off"
        ) from None
    for table in tables:
        if not isinstance(record, dict) or not isinstance(record.get(table), list):
            found = sorted(record) if isinstance(record, dict) else type(record).__name__
            raise ValueError(
                f'{path} has no list "{table}" (found {found}): give a COCO-style annotation file'
            )
    return record


def require_annotation_file(path: str | Path) -> Path:
    """Return the path, if there is a file; else raise FileNotFoundError."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no annotation file {path}: `clim-data doctor` says where official ones come from, "
            "`clim-data proposals` "
            "makes boxes"
        )
    return path
