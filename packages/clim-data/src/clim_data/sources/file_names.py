"""File names that the jsons of a shard give its images, as `clim-data pack` writes them."""

import json
from collections.abc import Iterator
from pathlib import Path

from clim_data.files.names import clean_name, leads_out
from clim_data.sources.indexes import ShardIndex
from clim_data.sources.shards import ByteReader

META = 2  # place of the json among the spans of a sample


def usable_name(name: object) -> str:
    """Return a file name cleaned; "" for one that is no text or leads out of its folder."""
    if isinstance(name, str) and name and not leads_out(name):
        return clean_name(name)
    return ""


def name_in_json(meta: bytes) -> str:
    """Return the "file_name" of the json of a sample, "" where there is none that can be used.

    Faults of the json are reported by the code that needs it.
    """
    try:
        return usable_name(json.loads(meta).get("file_name"))
    except (ValueError, AttributeError, RecursionError):
        return ""


def names_in_tar(path: str | Path, index: ShardIndex) -> tuple[str, ...]:
    """Read the file name of every sample of a local tar, "" for samples without one."""
    return tuple(_names(path, index))


def _names(path: str | Path, index: ShardIndex) -> Iterator[str]:
    reader = ByteReader()
    for start, size in index.spans[:, META].tolist():
        yield name_in_json(reader.read(path, start, size)) if start >= 0 else ""
    reader.close()
