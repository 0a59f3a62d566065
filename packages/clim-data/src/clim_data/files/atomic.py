"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, record: dict | list) -> None:
    """Write a JSON file that is either whole or absent: under a temporary name, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    with open(part, "w", encoding="utf-8") as out:
        json.dump(record, out, separators=(",", ":"), ensure_ascii=False)
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, path)


def write_bytes(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def flush(path: Path) -> None:
    """A file or folder to the disk, so that a power cut, too, finds what was renamed complete."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(draft: Path, path: Path) -> None:
    """Moves a finished draft over `path`; whenever the machine stops, one of the two is there,
    whole."""
    flush(draft)
    os.replace(draft, path)
    flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a small file in one move, so that it is never read half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text)
    replace_file(draft, path)


def write_json_indented(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")
