"""Random access to webdataset tars: one sample at a time, by the index of its shard.

After a shard is indexed, any sample is read with one `pread` for each of its files. That is what
makes a global shuffle, equal counts for every rank and an exact resume possible.
"""

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RawSample:
    """One undecoded sample: `name` is "shard/key", `key` what the shard calls it; absent files are
    None.

    `number` is its place in the store that it was read from. `copy` numbers the repetitions of a
    sample in one epoch.
    """

    name: str
    key: str
    image: bytes
    text: bytes | None
    meta: bytes | None
    number: int = -1
    copy: int = 0


def read_range(descriptor: int, offset: int, size: int) -> bytes:
    """Read `size` bytes from `offset` of an open file; fewer where the file ends before."""
    data = os.pread(descriptor, size, offset)
    while len(data) < size:  # large reads may come in pieces
        more = os.pread(descriptor, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


class ByteReader:
    """Reads byte ranges of many files, keeping the last few open; safe to fork and to pickle."""

    def __init__(self, keep_open: int = 32):
        self.keep_open = keep_open
        self._open: OrderedDict[str, int] = OrderedDict()

    def read(self, path: str | Path, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; OSError when the file ends before."""
        data = read_range(self._descriptor(str(path)), offset, size)
        if len(data) < size:
            raise OSError(f"{path} ends before byte {offset + size}")
        return data

    def size(self, path: str | Path) -> int:
        """Return the bytes of the file; it stays readable even if its name is removed."""
        return os.fstat(self._descriptor(str(path))).st_size

    def _descriptor(self, path: str) -> int:
        descriptor = self._open.pop(path, None)
        if descriptor is None:
            descriptor = os.open(path, os.O_RDONLY)
            while len(self._open) >= self.keep_open:
                os.close(self._open.popitem(last=False)[1])
        self._open[path] = descriptor
        return descriptor

    def close(self) -> None:
        """Close all files; they are opened again when they are read."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __getstate__(self) -> dict:
        return {"keep_open": self.keep_open, "_open": OrderedDict()}

    def __del__(self) -> None:
        self.close()
