"""Write files whole: readers see the old file or the new one, never a part.

clim-data has the same in `clim_data.files`; neither package may import the other.
"""

import errno
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

# safetensors puts the system's number into its text: "(os error 28)", before 0.6 "Os { code: 28,".
_NUMBER = re.compile(r"(?:\(os error |\bOs \{ code: )(\d+)")


@contextmanager
def write_whole(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Give a draft to write to, which becomes `path` when the block ends without an error.

    Args:
        path: the file; its folder must be there.
        sync: wait until the content is on the disk. False for caches, which can be made again.

    Raises:
        OSError: the file cannot be written; the message has the free space there. The draft is gone
            then, and an old file stays.
    """
    # Two processes, or two threads of one, never share a draft.
    draft = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    # A new file, never through a link; it shows which mode the umask gives.
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    mode = stat.S_IMODE(os.fstat(handle).st_mode)
    os.close(handle)
    try:
        try:
            yield draft
        except SafetensorError as error:
            raise _as_os_error(error, path) from error
        # safetensors puts a file of its own there, which only its owner may read.
        os.chmod(draft, mode)
        if sync:
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _as_os_error(error: SafetensorError, path: Path) -> OSError:
    """Return the system's error that safetensors ran into."""
    found = _NUMBER.search(str(error))
    number = int(found[1]) if found else errno.EIO
    free = shutil.disk_usage(path.parent).free / 1e6
    return OSError(number, f"{os.strerror(number)} ({free:,.1f} MB are free)", str(path))


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON."""
    with write_whole(path) as draft:
        draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
