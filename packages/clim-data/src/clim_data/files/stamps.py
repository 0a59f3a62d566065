"""Whether a file is still the one that was read."""

import os
from pathlib import Path
from typing import NamedTuple


class FileStamp(NamedTuple):
    """Size in bytes and time of modification in nanoseconds: both stay while a file is the same."""

    size: int
    modified: int


def file_stamp(path: str | Path) -> FileStamp | None:
    """Return the stamp of a file, None if there is no such file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return FileStamp(status.st_size, status.st_mtime_ns)
