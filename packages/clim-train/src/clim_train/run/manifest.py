"""The manifest of a checkpoint: sizes and checksums of its files, written when it is complete and
compared before it is used.

CRC-32 finds damage (a cut file, a flipped bit), not intent: whoever can change a file can change
the manifest, too. Foreign files are safe for another reason: nothing in them is executed
(`clim_train.engine.deepspeed_compat.only_tensors`).
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

from clim_data.files import write_json

MANIFEST = "manifest.json"
_CHUNK = 1 << 22

Checksums = dict[str, list[int]]
"""Path below the folder -> [bytes, CRC-32]."""


def checksums(folder: Path, rank: int = 0, world_size: int = 1) -> Checksums:
    """Return the checksums of this rank's share of the files in `folder`; the ranks together cover
    all files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {str(path.relative_to(folder)): _measure(path) for path in files[rank::world_size]}


def write_manifest(folder: Path, entries: Mapping[str, list[int]]) -> None:
    write_json(folder / MANIFEST, {"files": dict(sorted(entries.items()))}, indent=2)


def find_damage(folder: Path, rank: int = 0, world_size: int = 1) -> str | None:
    """Return the damage in this rank's share of the files that the manifest of `folder` lists, or
    None.

    Sizes of all files are compared on every rank, contents are read by one.
    """
    try:
        entries = json.loads((folder / MANIFEST).read_text())["files"]
        expected = {str(name): (int(size), int(crc)) for name, (size, crc) in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({type(error).__name__})"
    for name, (size, _) in expected.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"{MANIFEST} names a file outside the checkpoint"
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    for name in sorted(expected)[rank::world_size]:
        if _measure(folder / name)[1] != expected[name][1]:
            return f"{name} has other contents than when it was written"
    return None


def _measure(path: Path) -> list[int]:
    size = crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    return [size, crc]
