"""A folder of image files as a source of samples, and its captions."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from clim_data.annotations.caption_files import (
    caption_table_in,
    captions_beside,
    read_caption_table,
)
from clim_data.faults import BrokenSample
from clim_data.sources.captions import captions_of_files
from clim_data.sources.shards import RawSample
from clim_data.sources.walk import walk_folder


@dataclass(frozen=True)
class FolderIndex:
    """The images of one folder, each a sample whose key is its name in the folder.

    keys: numpy unicode array (n,). faults: unusable files of the folder (see `walk_folder`); an
    image is opened only on demand.
    """

    root: str
    keys: np.ndarray
    faults: tuple[BrokenSample, ...] = ()

    @classmethod
    def of(cls, root: str | Path) -> "FolderIndex":
        """List the images of a folder."""
        content = walk_folder(root)
        return cls(str(root), np.array(content.images, dtype=np.str_), tuple(content.faults))

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def _joined(self) -> tuple[dict[str, list[str]] | None, list[BrokenSample]]:
        if self.table_file is None:
            return None, []
        rows = read_caption_table(self.table_file)
        return captions_of_files(rows, self.keys.tolist(), self.root)

    @cached_property
    def table_file(self) -> Path | None:
        """The table of captions in the folder, such as `metadata.jsonl`, or None."""
        return caption_table_in(self.root)

    @property
    def table(self) -> dict[str, list[str]] | None:
        """Captions by name from the folder's table; None where txt files count instead."""
        return self._joined[0]

    @property
    def table_faults(self) -> list[BrokenSample]:
        """Rows of the folder's table that cannot be used, or name no image of the folder."""
        return self._joined[1]

    def why_no_captions(self, key: str) -> str:
        """Return the reason why an image has no captions."""
        if self.table is None or self.table_file is None:
            return "no txt next to it, and no metadata.jsonl or metadata.csv in the folder"
        missing = "caption" if key in self.table else "row"
        return f"{self.table_file.name} has no {missing} for it"

    @cached_property
    def has_text(self) -> np.ndarray:
        """bool (n,): whether the image has captions in the folder's table, or a txt next to it."""
        if self.table is not None:
            return np.array([bool(self.table.get(key)) for key in self.keys.tolist()], dtype=bool)
        root = Path(self.root)
        return np.array(
            [(root / key).with_suffix(".txt").is_file() for key in self.keys.tolist()], dtype=bool
        )

    def take(self, kept: np.ndarray) -> "FolderIndex":
        """Return the index of some of the images, chosen by `kept`, bool (n,)."""
        taken = replace(self, keys=self.keys[kept])
        # The table was joined with all images of the folder; those that stay have their rows.
        if "_joined" in self.__dict__:
            taken.__dict__["_joined"] = self._joined
        return taken

    def stamp(self) -> str:
        """Return a digest of the captions if they are in one file, else ""."""
        if self.table is None:
            return ""
        return hashlib.sha256(
            json.dumps([self.table.get(key) for key in self.keys.tolist()]).encode()
        ).hexdigest()

    def read(self, place: int, name: str, number: int) -> RawSample:
        """Read an image's bytes, with its captions as the json of a shard would have them.

        Raises:
            BrokenSample: the file has gone, or it or its txt cannot be read.
        """
        key = str(self.keys[place])
        path = Path(self.root) / key
        try:
            image = path.read_bytes()
        except OSError as fault:
            reason = "missing image" if isinstance(fault, FileNotFoundError) else "unreadable image"
            raise BrokenSample(reason, name, str(fault)) from None
        try:
            captions = self.table.get(key) if self.table is not None else captions_beside(path)
        except BrokenSample as fault:
            # The fault is reported by the code that needs captions, which decodes the text again.
            try:
                text = path.with_suffix(".txt").read_bytes()
            except OSError:
                raise BrokenSample(fault.reason, name, fault.detail) from None
            return RawSample(name, key, image, text, None, number)
        meta = None if captions is None else json.dumps({"captions": captions}).encode()
        return RawSample(name, key, image, None, meta, number)
