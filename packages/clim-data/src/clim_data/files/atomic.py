"""Files that are written whole or not at all: the one place that renames a draft."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def write_whole(path: str | os.PathLike, *, sync: bool = True) -> Iterator[Path]:
    """Give a draft to write, and move it to `path` when the block ends without an error.

    Readers see the old file or the whole new one, whenever the process is killed or the machine
    stops. The draft lies next to `path`, under a hidden name of its own, so that two processes
    that write the same file do not share a draft, and ends in `.part`, so that no pattern for
    finished files finds it. The draft is removed when the block fails; one that a killed process
    left may be deleted.

    Args:
        path: the file to write. Its folder is made.
        sync: flush the file and its folder to the disk before this returns. False is for caches,
            which can be made again.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        yield draft
        replace_file(draft, path, sync=sync)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


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
        flush(path.parent)


def flush(path: Path) -> None:
    """Write a file or a folder's entries to the disk, so that they survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
