"""Random access to webdataset tars: what is in each, where, and one sample at a time.

A shard is indexed once, from its tar headers; after that any sample is read with one `pread` for
each of its files. That is what makes a global shuffle, equal counts for every rank and an exact
resume possible.
"""

import hashlib
import json
import os
import tarfile
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from clim_data.faults import BrokenSample
from clim_data.files.atomic import write_json
from clim_data.files.names import IMAGE_SUFFIXES, leads_out

INDEX_VERSION = 2
INDEX_SUFFIX = ".index.json"
MAX_MEMBER_BYTES = 512 << 20  # of one file in a shard: more than any image that is decoded


@dataclass(frozen=True)
class RawSample:
    """One undecoded sample: `name` is "shard/key", `key` what the shard calls it; absent files are
    None.

    `number` is its place in the store that it was read from.
    """

    name: str
    key: str
    image: bytes
    text: bytes | None
    meta: bytes | None
    number: int = -1


@dataclass(frozen=True)
class ShardIndex:
    """Where the samples of one tar are.

    keys: numpy unicode array (n,). spans: int64 (n, 3, 2), (offset, bytes) of image, txt and json;
    absent: -1, 0. faults: what could not be indexed. tar_bytes: size of the tar the index belongs
    to.
    """

    keys: np.ndarray
    spans: np.ndarray
    faults: tuple[BrokenSample, ...]
    tar_bytes: int

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def has_text(self) -> np.ndarray:
        """bool (n,): whether the sample has a txt or a json."""
        return np.asarray((self.spans[:, 1:, 0] >= 0).any(axis=1))

    def take(self, kept: np.ndarray) -> "ShardIndex":
        """The index of some of the samples; `kept` is bool (n,)."""
        return replace(self, keys=self.keys[kept], spans=self.spans[kept])

    def stamp(self) -> str:
        """What identifies the tar beside its name and keys."""
        return str(self.tar_bytes)

    def to_json(self) -> dict:
        samples = [
            [str(key), *span.reshape(-1).tolist()] for key, span in zip(self.keys, self.spans)
        ]
        faults = [[f.reason, f.name, f.detail] for f in self.faults]
        return {
            "version": INDEX_VERSION,
            "tar_bytes": self.tar_bytes,
            "samples": samples,
            "faults": faults,
        }

    @classmethod
    def from_json(cls, record: dict) -> "ShardIndex":
        """Inverse of `to_json`; ValueError, KeyError or TypeError when it is something else."""
        if record["version"] != INDEX_VERSION:
            raise ValueError(f"index version {record['version']} is not {INDEX_VERSION}")
        rows = record["samples"]
        keys = np.array([row[0] for row in rows], dtype=np.str_)
        spans = np.array([row[1:] for row in rows], dtype=np.int64).reshape(len(rows), 3, 2)
        return cls(
            keys, spans, tuple(BrokenSample(*f) for f in record["faults"]), int(record["tar_bytes"])
        )


def index_tar(path: str | Path, name: str | None = None) -> ShardIndex:
    """Read the headers of a plain tar and group its members into samples by the name up to the
    first dot.

    A sample is kept when it is whole: an image (jpg, jpeg, png, webp), a txt or json if there are
    any, every byte of them inside the file. What is not kept is listed in `faults`: samples without
    image, a cut shard, a file that is no tar, a member whose name leads out of its folder or that
    is absurdly large. Links and devices are not looked at, and no member is ever written to the
    disk. Duplicate keys are told apart by their place.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path, name = Path(path), name or Path(path).name
    tar_bytes = path.stat().st_size
    faults: list[BrokenSample] = []
    groups: list[tuple[str, dict[str, tuple[int, int]]]] = []
    try:
        with open(path, "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                if member.isfile():
                    fault = _add_member(groups, member, name)
                    faults += [fault] if fault else []
            if not has_end_mark(stream, tar_bytes):
                faults.append(
                    BrokenSample(
                        "cut shard", name, f"no end-of-archive mark after {tar_bytes} bytes"
                    )
                )
    except tarfile.ReadError as fault:
        detail = f"{fault} after {len(groups)} samples; shards are plain tars, not compressed ones"
        faults.append(BrokenSample("cut shard" if groups else "not a tar", name, detail))
    keys, spans = [], []
    for key, files in groups:
        image = next((files[s] for s in IMAGE_SUFFIXES if s in files), None)
        text, meta = files.get("txt", (-1, 0)), files.get("json", (-1, 0))
        end = max([start + size for start, size in (image or (0, 0), text, meta)])
        if image is None:
            faults.append(BrokenSample("incomplete sample", f"{name}/{key}", "no image"))
        elif end > tar_bytes:
            faults.append(
                BrokenSample("cut shard", f"{name}/{key}", f"ends at byte {end} of {tar_bytes}")
            )
        else:
            keys.append(key)
            spans.append((image, text, meta))
    arrays = np.array(keys, dtype=np.str_), np.array(spans, dtype=np.int64).reshape(len(keys), 3, 2)
    return ShardIndex(*arrays, tuple(faults), tar_bytes)


def _add_member(groups: list, member: tarfile.TarInfo, shard: str) -> BrokenSample | None:
    if leads_out(member.name):
        return BrokenSample(
            "path outside the folder", f"{shard}/{member.name}", "leads out of the shard"
        )
    if member.size > MAX_MEMBER_BYTES:
        detail = f"{member.size} bytes, at most {MAX_MEMBER_BYTES} are read"
        return BrokenSample("file too large", f"{shard}/{member.name}", detail)
    folder, _, file = member.name.rpartition("/")
    stem, _, suffix = file.partition(".")
    key, suffix = (f"{folder}/{stem}" if folder else stem), suffix.lower()
    if not groups or groups[-1][0] != key or suffix in groups[-1][1]:
        groups.append((key, {}))
    groups[-1][1][suffix] = (member.offset_data, member.size)
    return None


def has_end_mark(stream: BinaryIO, tar_bytes: int) -> bool:
    """Whether an open tar ends with the two empty blocks that its writer adds last."""
    if tar_bytes < 1024:
        return False
    stream.seek(tar_bytes - 1024)
    return not any(stream.read(1024))


def load_index(path: Path, cache_folder: Path | None, name: str | None = None) -> ShardIndex:
    """Index of a local tar: from the file beside it, from the cache, or from its headers (then
    cached).

    An index is believed only while the size it records is the size of the tar. Small tars are not
    cached: reading their headers is as quick.
    """
    tar_bytes = path.stat().st_size
    beside = path.with_name(path.name + INDEX_SUFFIX)
    places = [beside]
    if cache_folder is not None and tar_bytes > 64 << 20:
        stamp = f"{path.resolve()}|{tar_bytes}|{path.stat().st_mtime_ns}"
        places.append(
            cache_folder / "index" / (hashlib.sha256(stamp.encode()).hexdigest()[:32] + ".json")
        )
    for place in places:
        index = read_index(place)
        if index is not None and index.tar_bytes == tar_bytes:
            return index
    index = index_tar(path, name)
    if len(places) > 1:
        with suppress(OSError):  # a cache that cannot be written costs time, nothing else
            write_json(places[1], index.to_json())
    return index


def read_index(path: Path) -> ShardIndex | None:
    """Index stored at `path`, None when there is none that can be read."""
    try:
        return ShardIndex.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


class ByteReader:
    """Reads byte ranges of many files, keeping the last few open; safe to fork and to pickle."""

    def __init__(self, keep_open: int = 32):
        self.keep_open = keep_open
        self._open: OrderedDict[str, int] = OrderedDict()

    def read(self, path: str | Path, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; OSError when the file ends before."""
        descriptor = self._descriptor(str(path))
        data = os.pread(descriptor, size, offset)
        while len(data) < size:
            more = os.pread(descriptor, size - len(data), offset + len(data))
            if not more:
                raise OSError(f"{path} ends before byte {offset + size}")
            data += more
        return data

    def size(self, path: str | Path) -> int:
        """Bytes of the file, which stays readable from here on even if its name is removed."""
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
        while self._open:
            os.close(self._open.popitem()[1])

    def __getstate__(self) -> dict:
        return {"keep_open": self.keep_open, "_open": OrderedDict()}

    def __del__(self) -> None:
        self.close()
