"""A folder of image files as a source of samples, and the captions that lie in it."""

import hashlib
import json
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from clim_data.annotations.caption_files import CAPTION_LIST, captions_beside, read_caption_table
from clim_data.faults import BrokenSample
from clim_data.files.names import is_image
from clim_data.sources.shards import RawSample


def image_files(root: str | Path) -> list[str]:
    """Names, relative to `root` with "/", of every jpg, jpeg, png and webp below it, sorted.

    Links are followed, also to folders: they are the user's own. Hidden folders are not entered.
    """
    names: list[str] = []
    entered: set[tuple[int, int]] = set()
    for folder, below, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:  # a link to a folder above
            below.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        below[:] = [name for name in below if not name.startswith(".")]
        inner = Path(folder).relative_to(root).as_posix()
        prefix = "" if inner == "." else f"{inner}/"
        names += [prefix + name for name in files if is_image(name)]
    return sorted(names)


@dataclass(frozen=True)
class FolderIndex:
    """The images of one folder, each a sample whose key is its name in the folder.

    `keys`: numpy unicode array (n,). `faults`: always empty, an image is not opened before it is
    wanted.
    """

    root: str
    keys: np.ndarray
    faults: tuple[BrokenSample, ...] = ()

    @classmethod
    def of(cls, root: str | Path) -> "FolderIndex":
        return cls(str(root), np.array(image_files(root), dtype=np.str_))

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def table(self) -> dict[str, list[str]] | None:
        """Captions by name from `metadata.jsonl` in the folder; None when there is none, and txt
        files count."""
        listed = Path(self.root) / CAPTION_LIST
        return read_caption_table(listed) if listed.is_file() else None

    @cached_property
    def has_text(self) -> np.ndarray:
        """bool (n,): whether the image has captions in the folder's table, or a txt beside it."""
        if self.table is not None:
            return np.array([bool(self.table.get(key)) for key in self.keys.tolist()], dtype=bool)
        root = Path(self.root)
        return np.array(
            [(root / key).with_suffix(".txt").is_file() for key in self.keys.tolist()], dtype=bool
        )

    def take(self, kept: np.ndarray) -> "FolderIndex":
        """The index of some of the images; `kept` is bool (n,)."""
        return replace(self, keys=self.keys[kept])

    def stamp(self) -> str:
        """What identifies the folder beside its name and keys: its captions, if they are in one
        file."""
        if self.table is None:
            return ""
        return hashlib.sha256(
            json.dumps([self.table.get(key) for key in self.keys.tolist()]).encode()
        ).hexdigest()

    def read(self, place: int, name: str, number: int) -> RawSample:
        """The image's bytes, with its captions as the json of a shard would have them.

        Raises:
            BrokenSample: the file has gone, or cannot be read.
        """
        key = str(self.keys[place])
        path = Path(self.root) / key
        try:
            image = path.read_bytes()
        except OSError as fault:
            reason = "missing image" if isinstance(fault, FileNotFoundError) else "unreadable image"
            raise BrokenSample(reason, name, str(fault)) from None
        captions = self.table.get(key) if self.table is not None else captions_beside(path)
        meta = None if captions is None else json.dumps({"captions": captions}).encode()
        return RawSample(name, key, image, None, meta, number)
