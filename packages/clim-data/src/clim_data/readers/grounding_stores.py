"""Sources of grounding records: annotation files next to image folders, or shards of `clim-data
pack`."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from clim_data.faults import BrokenSample
from clim_data.files.cache import default_cache_folder
from clim_data.files.names import inside, locate
from clim_data.readers.grounding import RecordTable
from clim_data.sources.expand import Sources, expand_sources, is_remote
from clim_data.sources.items import PackItem
from clim_data.sources.packs import index_of_shard, with_missing_shards
from clim_data.sources.shards import ByteReader
from clim_data.sources.tars import BLOCK, BadHeader, padded, parse_header


@dataclass(frozen=True)
class StoredRecord:
    """One record with its image and its further files by suffix, each a path or bytes."""

    record: dict
    image: Path | bytes
    files: Mapping[str, Path | bytes]


class GroundingStore(Protocol):
    """The interface of a source for readers: the number of records, a record, and a record with its
    files."""

    faults: list[BrokenSample]

    def __len__(self) -> int: ...

    def record(self, number: int) -> dict:
        """Return one record without its files."""
        ...

    def __getitem__(self, number: int) -> StoredRecord: ...

    def stamp(self) -> str:
        """Return a text that changes with the records and their order, wherever they lie."""
        ...


class FileStore:
    """Records of annotation files; images and other files stay where they are.

    Items with a fault are skipped and listed in `faults`.
    """

    def __init__(self, items: Iterable[PackItem]):
        self._folders: list[str] = []
        self.faults: list[BrokenSample] = []
        self._table = RecordTable(self._entries(items))

    def _entries(self, items: Iterable[PackItem]) -> Iterator[dict]:
        for item in items:
            if item.fault is not None:
                self.faults.append(BrokenSample(*item.fault))
                continue
            files = {
                suffix: [self._number(folder), name]
                for suffix, (folder, name) in item.files.items()
            }
            image = [self._number(item.folder), item.name]
            yield {"image": image, "files": files, "record": {"key": item.key, **item.meta}}

    def _number(self, folder: str) -> int:
        if folder not in self._folders:
            self._folders.append(folder)
        return self._folders.index(folder)

    def __len__(self) -> int:
        return len(self._table)

    def stamp(self) -> str:
        """Return a text that changes with the records and their order."""
        return self._table.stamp()

    def record(self, number: int) -> dict:
        """Return one record without its files."""
        return self._table[number]["record"]

    def __getitem__(self, number: int) -> StoredRecord:
        """BrokenSample when the image is not there."""
        entry = self._table[number]
        folder, name = entry["image"]
        files = {
            suffix: inside(self._folders[i], file) for suffix, (i, file) in entry["files"].items()
        }
        return StoredRecord(entry["record"], locate(self._folders[folder], name), files)


class ShardStore:
    """Records of shards, in the order of the shards' names; every read is one or two `pread`s.

    Raises:
        FileNotFoundError: no shard matches. ValueError: a source is a URL or a folder of images.
    """

    def __init__(self, shards: Sources):
        paths = with_missing_shards(expand_sources(shards), shards)
        wrong = [path for path in paths if is_remote(path) or not path.endswith(".tar")]
        if wrong:
            raise ValueError(
                f"{wrong[0]} is not a shard on the disk: give the folder that `clim-data pack` "
                "wrote"
            )
        self._paths = paths
        indices = [index_of_shard(Path(path), default_cache_folder()) for path in paths]
        self.faults = [fault for index in indices for fault in index.faults]
        self._shard = np.concatenate(
            [np.full(len(index), i, dtype=np.int32) for i, index in enumerate(indices)]
        )
        self._spans = np.concatenate([index.spans for index in indices])
        self._stamps = [f"{Path(path).name}|{index.stamp()}" for path, index in zip(paths, indices)]
        self._reader = ByteReader()

    def __len__(self) -> int:
        return len(self._spans)

    def stamp(self) -> str:
        """Return a text that changes with the shards, their sizes and their order."""
        return hashlib.sha256("\n".join(self._stamps).encode()).hexdigest()[:16]

    def record(self, number: int) -> dict:
        """Return one record; BrokenSample when it has no json, or one that is no record."""
        path, spans = self._place(number)
        name = f"{Path(path).name} sample {number}"
        if spans[2, 0] < 0:
            raise BrokenSample("bad json", name, "it has none")
        try:
            record = json.loads(self._reader.read(path, *spans[2].tolist()))
        except (OSError, ValueError, RecursionError) as fault:
            raise BrokenSample("bad json", name, str(fault)) from None
        if not isinstance(record, dict):
            raise BrokenSample("bad json", name, "not an object")
        return record

    def __getitem__(self, number: int) -> StoredRecord:
        """BrokenSample when the shard was cut or changed."""
        record = self.record(number)
        path, spans = self._place(number)
        (image, size), (start, _) = spans[0].tolist(), spans[2].tolist()
        try:
            data = self._reader.read(path, image, size)
            files = dict(self._between(path, image + size, start))
        except (OSError, BadHeader) as fault:
            raise BrokenSample(
                "cut shard", f"{Path(path).name} sample {number}", str(fault)
            ) from None
        return StoredRecord(record, data, files)

    def _place(self, number: int) -> tuple[str, np.ndarray]:
        if not 0 <= number < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        return self._paths[self._shard[number]], self._spans[number]

    def _between(self, path: str, start: int, end: int) -> Iterator[tuple[str, bytes]]:
        """(suffix, bytes) of the members that the packer puts between a sample's image and its
        json."""
        start = padded(start)
        block = self._reader.read(path, start, max(0, end - BLOCK - start))
        place = 0
        while place < len(block):
            member = parse_header(block[place : place + BLOCK])
            place += BLOCK
            yield (
                member.name.rpartition("/")[2].partition(".")[2],
                block[place : place + member.size],
            )
            place += padded(member.size)
