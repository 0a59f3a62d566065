"""Files that are written whole or not at all: the one place that renames a draft."""

import errno
import json
import os
import re
import secrets
import shutil
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from clim_data.command_line.failures import full_disk

DRAFT_SUFFIX = ".part"
_OTHER_HOST_S = 86400.0  # a draft of another machine that nothing touched for so long is dead
_DRAFT = re.compile(r"\.(?P<host>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}\.part$")


@contextmanager
def write_whole(path: str | os.PathLike, *, sync: bool = True) -> Iterator[Path]:
    """Give a draft to write, and move it to `path` when the block ends without an error.

    Readers see the old file or the whole new one, whenever the process is killed or the machine
    stops. The draft is a new, empty file next to `path`, under a hidden name of its own, so that
    two processes that write the same file do not share a draft, and ends in `.part`, so that no
    pattern for finished files finds it. The draft is removed when the block fails; one that a
    killed process left may be deleted (see `remove_stale_drafts`). The file's mode follows the
    umask, not the draft's own mode. A link at `path` is replaced, not followed.

    Args:
        path: the file to write. Its folder is made.
        sync: flush the file and its folder to the disk before this returns. False is for caches,
            which can be made again.

    Raises:
        OSError: the file cannot be written; on a full disk the message has the path and the free
            space, whichever library noticed it.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft, mode = _new_draft(path)
    except OSError as error:
        raise _with_path(error, path) or error from error
    try:
        yield draft
        if draft.stat().st_mode & 0o777 != mode:  # a library that writes a file of its own
            draft.chmod(mode)
        replace_file(draft, path, sync=sync)
    except BaseException as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        explained = _with_path(error, path) if isinstance(error, Exception) else None
        if explained is not None:
            raise explained from error
        raise


def _new_draft(path: Path) -> tuple[Path, int]:
    """Make the empty draft of a file; its path, and the mode that the umask leaves."""
    name = os.fsencode(path.name)[:120].decode(errors="ignore")  # a name has at most 255 bytes
    draft = path.with_name(f".{name}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}{DRAFT_SUFFIX}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        return draft, os.fstat(handle).st_mode & 0o777
    finally:
        os.close(handle)


def _host() -> str:
    return f"{zlib.crc32(socket.gethostname().encode(errors='surrogateescape')):08x}"


def _with_path(error: Exception, path: Path) -> OSError | None:
    """An error of a full disk with its path and the free space; None for other errors."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and full_disk(error):  # libraries have classes of their own
        number = errno.ENOSPC
    if number not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return None
    free = ""
    with suppress(OSError):
        free = f" ({shutil.disk_usage(path.parent).free / 1e6:,.1f} MB are free)"
    return OSError(number, f"{os.strerror(number)}{free}", str(path))


def remove_stale_drafts(folder: str | os.PathLike, pattern: str = "*") -> None:
    """Remove the drafts that killed processes left in `folder`, of files that fit `pattern`.

    The draft of a process that lives stays; one of another machine goes after a day in which
    nothing was written to it.
    """
    for draft in Path(folder).glob(f".{pattern}{DRAFT_SUFFIX}"):
        found = _DRAFT.search(draft.name)
        with suppress(OSError):
            if found is not None and found["host"] == _host():
                is_stale = not _is_alive(int(found["process"]))
            else:
                is_stale = time.time() - draft.lstat().st_mtime > _OTHER_HOST_S
            if is_stale:
                draft.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def write_json(
    path: str | os.PathLike, content: Any, *, indent: int | None = None, sync: bool = True
) -> None:
    """Write a JSON file: compact for machines, or indented and with a last line end for people."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(content, indent=indent, separators=separators, ensure_ascii=False)
    write_text(path, text if indent is None else f"{text}\n", sync=sync)


def write_text(path: str | os.PathLike, text: str, *, sync: bool = True) -> None:
    """Write a text file in UTF-8."""
    write_bytes(path, text.encode(), sync=sync)


def write_bytes(path: str | os.PathLike, content: bytes, *, sync: bool = True) -> None:
    """Write a file of bytes."""
    with write_whole(path, sync=sync) as draft:
        draft.write_bytes(content)


def replace_file(draft: Path, path: Path, *, sync: bool = True) -> None:
    """Move a finished draft, a file or a folder of files, over `path`."""
    if sync:
        flush(draft)
    os.replace(draft, path)
    if sync:
        with suppress(OSError):  # some network file systems cannot flush a folder
            flush(path.parent)


def flush(path: Path) -> None:
    """Write a file or a folder's entries to the disk, so that they survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
