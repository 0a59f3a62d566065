"""The folder that a pack writes to: its lock, its manifest and the drafts of killed packs."""

import fcntl
import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clim_data.files.atomic import DRAFT_SUFFIX, write_json
from clim_data.sources.indexes import INDEX_SUFFIX
from clim_data.sources.packs import MANIFEST, read_manifest


def claim(folder: Path, name: str, manifest: dict, *, overwrite: bool) -> None:
    """Take the folder for this pack: refuse or clear another pack's shards, write the manifest.

    Raises:
        ValueError: the folder holds another pack, and `overwrite` does not allow to replace it.
    """
    tars = folder.glob(f"{glob.escape(name)}-*.tar")
    others = [path for path in tars if path.name not in manifest["shards"]]
    before = read_manifest(folder)
    same = before is not None and before.get("plan") == manifest["plan"]
    if not overwrite and (others or (before is not None and not same)):
        raise ValueError(
            f"{folder} holds shards of another pack: use an empty folder, or --overwrite to "
            "replace them"
        )
    for stale in others:
        stale.unlink(missing_ok=True)
        stale.with_name(stale.name + INDEX_SUFFIX).unlink(missing_ok=True)
    if before is None or not same or "shards" not in before:
        write_manifest(folder, manifest)


def write_manifest(folder: Path, manifest: dict) -> None:
    """Write `pack.json`, unless it says the same already."""
    if read_manifest(folder) != manifest:
        write_json(folder / MANIFEST, manifest)


@contextmanager
def only_packer(folder: Path) -> Iterator[int]:
    """Hold the folder so that two packs cannot write to it at once; yield the lock's file number.

    The system drops the lock with the last process that has the number open.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield handle
    except BlockingIOError:
        raise ValueError(
            f"another pack is writing to {folder}: wait for it, or use another folder"
        ) from None
    finally:
        os.close(handle)


@contextmanager
def no_drafts(folder: Path, name: str) -> Iterator[None]:
    """Remove the drafts of this pack before and after: who holds the folder is its only writer."""
    try:
        _remove_drafts(folder, name)
        yield
    finally:
        _remove_drafts(folder, name)


def _remove_drafts(folder: Path, name: str) -> None:
    for beginning in (f"{name}-", MANIFEST):
        for draft in folder.glob(f".{glob.escape(beginning)}*{DRAFT_SUFFIX}"):
            draft.unlink(missing_ok=True)
