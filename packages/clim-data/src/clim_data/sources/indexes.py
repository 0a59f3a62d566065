"""The index of a shard: the samples of a tar and their places.

An index is made of the headers of the tar. It is stored next to the shard by `clim-data pack`, or
in the cache, and used again only while it fits the tar.
"""

import hashlib
import json
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np

from clim_data.faults import BrokenSample
from clim_data.files.atomic import write_json
from clim_data.files.names import IMAGE_SUFFIXES, leads_out
from clim_data.sources.tars import (
    BLOCK,
    END_MARK,
    PLAIN_FILES,
    BadHeader,
    Damage,
    Member,
    parse_header,
    read_tar,
)

logger = logging.getLogger(__name__)

INDEX_VERSION = 2
INDEX_SUFFIX = ".index.json"
MAX_MEMBER_BYTES = 512 << 20  # of one file in a shard: more than any image that is decoded
CACHED_FROM_BYTES = 64 << 20  # headers of smaller tars are read as quickly as an index
LOST = ("cut shard", "damaged shard", "not a tar")
"""Reasons of faults that concern a whole shard."""

_SMALL_INDEX_BYTES = 1 << 20
_SAMPLES_COMPARED = 8
_DAMAGES_NAMED = 5


@dataclass(frozen=True)
class ShardIndex:
    """The places of the samples of one tar.

    keys: numpy unicode array (n,). spans: int64 (n, 3, 2), (offset, bytes) of image, txt and json;
    absent: -1, 0. faults: parts that could not be indexed. tar_bytes: size of the tar the index
    belongs to. names: n file names of the jsons, None if they were not read.
    """

    keys: np.ndarray
    spans: np.ndarray
    faults: tuple[BrokenSample, ...]
    tar_bytes: int
    names: tuple[str, ...] | None = None

    @classmethod
    def empty(cls, *faults: BrokenSample) -> "ShardIndex":
        """Return the index of an unreadable shard."""
        return cls(np.array([], dtype=np.str_), np.zeros((0, 3, 2), np.int64), faults, 0)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def has_text(self) -> np.ndarray:
        """bool (n,): whether the sample has a txt or a json."""
        return np.asarray((self.spans[:, 1:, 0] >= 0).any(axis=1))

    def take(self, kept: np.ndarray) -> "ShardIndex":
        """Return the index of some of the samples, chosen by `kept`, bool (n,)."""
        names = self.names and tuple(compress(self.names, kept.tolist()))
        return replace(self, keys=self.keys[kept], spans=self.spans[kept], names=names)

    def stamp(self) -> str:
        """Return the facts that identify the tar, together with its name and keys."""
        return str(self.tar_bytes)

    def to_json(self) -> dict:
        """Return the index as values of JSON."""
        samples = [
            [str(key), *span.reshape(-1).tolist()] for key, span in zip(self.keys, self.spans)
        ]
        faults = [[f.reason, f.name, f.detail] for f in self.faults]
        names = {} if self.names is None else {"names": list(self.names)}
        sizes = {"version": INDEX_VERSION, "tar_bytes": self.tar_bytes}
        return {**sizes, "samples": samples, "faults": faults, **names}

    @classmethod
    def from_json(cls, record: dict) -> "ShardIndex":
        """Read the result of `to_json`.

        Raises:
            ValueError, KeyError, TypeError: it is something else, or a place in it cannot be one
                of a tar of its size.
        """
        if record["version"] != INDEX_VERSION:
            raise ValueError(f"index version {record['version']} is not {INDEX_VERSION}")
        rows, tar_bytes = record["samples"], record["tar_bytes"]
        if not isinstance(tar_bytes, int) or not all(isinstance(row[0], str) for row in rows):
            raise TypeError("sizes are whole numbers and keys are texts")
        keys = np.array([row[0] for row in rows], dtype=np.str_)
        "".join(keys.tolist()).encode()  # halves of characters cannot be written in a report
        spans = np.array([row[1:] for row in rows] or np.zeros((0, 6), np.int64))
        if spans.dtype != np.int64:
            raise ValueError("places are whole numbers of at most 63 bits")
        spans = spans.reshape(len(rows), 3, 2)
        _check_spans(spans, tar_bytes)
        faults = tuple(BrokenSample(*map(str, fault)) for fault in record["faults"])
        return cls(keys, spans, faults, tar_bytes, _names_of(record, len(rows)))


def _names_of(record: dict, count: int) -> tuple[str, ...] | None:
    names = record.get("names")
    if names is None:
        return None
    "".join(names).encode()  # halves of characters cannot be written in a report
    if len(names) != count:
        raise ValueError(f"{len(names)} names of {count} samples")
    return tuple(names)


def _check_spans(spans: np.ndarray, tar_bytes: int) -> None:
    start, size = spans[..., 0], spans[..., 1]
    absent = (start == -1) & (size == 0)
    absent[:, 0] = False  # each sample has an image
    inside = (start >= BLOCK) & (start <= tar_bytes) & (size >= 0) & (size <= MAX_MEMBER_BYTES)
    inside &= size <= tar_bytes - start
    if not (absent | inside).all():
        raise ValueError(f"a place outside the tar of {tar_bytes} bytes")


def index_tar(path: str | Path, name: str | None = None) -> ShardIndex:
    """Read the headers of a plain tar and group its members into samples.

    Members of one sample have the same name up to the first dot.

    A sample is in the index when it is whole: an image (jpg, jpeg, png, webp), a txt or json if
    there are any, every byte of them inside the file. Everything else is listed in `faults`:
    samples without image, bytes of the shard that cannot be read, a file that is no tar, a member
    whose name leads out of its folder or that is absurdly large. Links and devices are ignored, and
    no member is ever written to the disk. Samples with equal keys differ by their place.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path, name = Path(path), name or Path(path).name
    tar_bytes = path.stat().st_size
    faults: list[BrokenSample] = []
    damages: list[Damage] = []
    groups: list[_Group] = []
    for entry in read_tar(path):
        if isinstance(entry, Damage):
            damages.append(entry)
        elif fault := _add_member(groups, entry, name):
            faults.append(fault)
    faults += _damage_faults(damages, groups, name, tar_bytes)

    keys, spans = [], []
    for group in groups:
        sample = f"{name}/{group.key}"
        image = next((group.files[s] for s in IMAGE_SUFFIXES if s in group.files), None)
        text, meta = group.files.get("txt", (-1, 0)), group.files.get("json", (-1, 0))
        end = max(start + size for start, size in (image or (0, 0), text, meta))
        if image is None:
            faults.append(BrokenSample("incomplete sample", sample, group.why_no_image))
        elif end > tar_bytes:
            faults.append(BrokenSample("cut shard", sample, f"ends at byte {end} of {tar_bytes}"))
        else:
            keys.append(group.key)
            spans.append((image, text, meta))
    arrays = np.array(keys, dtype=np.str_), np.array(spans, dtype=np.int64).reshape(len(keys), 3, 2)
    return ShardIndex(*arrays, tuple(faults), tar_bytes)


@dataclass
class _Group:
    """Members that follow each other and have one key: (offset, bytes) by suffix."""

    key: str
    files: dict[str, tuple[int, int]]
    why_no_image: str = "no image"


def _add_member(groups: list[_Group], member: Member, shard: str) -> BrokenSample | None:
    if member.kind == "a folder":
        return None
    if leads_out(member.name):
        return BrokenSample(
            "path outside the folder", f"{shard}/{member.name}", "leads out of the shard"
        )
    if member.size > MAX_MEMBER_BYTES:
        detail = f"{member.size} bytes, at most {MAX_MEMBER_BYTES} are read"
        return BrokenSample("file too large", f"{shard}/{member.name}", detail)

    key, suffix = _key_and_suffix(member.name)
    if member.kind:
        if suffix in IMAGE_SUFFIXES:
            if not groups or groups[-1].key != key:
                groups.append(_Group(key, {}))
            groups[-1].why_no_image = f"{member.name} is {member.kind}"
        return None
    if not groups or groups[-1].key != key or suffix in groups[-1].files:
        groups.append(_Group(key, {}))
    groups[-1].files[suffix] = (member.start, member.size)
    return None


def _key_and_suffix(name: str) -> tuple[str, str]:
    folder, _, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return (f"{folder}/{stem}" if folder else stem), suffix.lower()


def _damage_faults(
    damages: list[Damage], groups: list[_Group], shard: str, tar_bytes: int
) -> list[BrokenSample]:
    """One fault for all damages of a shard, or none."""
    if not groups:
        what = damages[0].what if damages else "no file in it"
        detail = f"{what}; shards are plain tars, not compressed ones"
        return [BrokenSample("not a tar", shard, detail)]
    if not damages:
        return []

    named = [_text_of(damage) for damage in damages[:_DAMAGES_NAMED]]
    if len(damages) > _DAMAGES_NAMED:
        named.append(f"and {len(damages) - _DAMAGES_NAMED} more such places")
    at_end = all(
        damage.stop == tar_bytes and damage.start >= tar_bytes - END_MARK for damage in damages
    )
    reason = "cut shard" if at_end else "damaged shard"
    return [BrokenSample(reason, shard, "; ".join(named))]


def _text_of(damage: Damage) -> str:
    if damage.start == damage.stop:
        return f"{damage.what} after {damage.stop:,} bytes"
    lost = damage.stop - damage.start
    return f"{damage.what} at byte {damage.start:,}, {lost:,} bytes from there are not read"


def load_index(path: Path, cache_folder: Path | None, name: str | None = None) -> ShardIndex:
    """Return the index of a local tar: the file next to it, the one in the cache, or a new one.

    A stored index is used only while it fits the tar, and the one next to the tar only when it is
    not older. A new index of a large tar is stored in the cache. Where the file next to a damaged
    tar lists samples that are lost, each of them is a fault.
    """
    status = path.stat()
    tar_bytes = status.st_size
    beside = path.with_name(path.name + INDEX_SUFFIX)
    listed = read_index(beside, tar_bytes)
    if (
        listed is not None
        and beside.stat().st_mtime_ns >= status.st_mtime_ns
        and fits(listed, path)
    ):
        return listed

    cached = None
    if cache_folder is not None and tar_bytes > CACHED_FROM_BYTES:
        stamp = f"{path.resolve()}|{tar_bytes}|{status.st_mtime_ns}"
        digest = hashlib.sha256(stamp.encode(errors="surrogateescape")).hexdigest()[:32]
        cached = cache_folder / "index" / f"{digest}.json"
        index = read_index(cached, tar_bytes)
        if index is not None and fits(index, path):
            return _with_lost(index, listed, name or path.name)

    index = index_tar(path, name)
    if cached is not None:
        store_index(cached, index)
    return _with_lost(index, listed, name or path.name)


def _with_lost(index: ShardIndex, listed: ShardIndex | None, name: str) -> ShardIndex:
    """Name each sample that a damaged tar lost, in place of the fault of the whole shard."""
    whole = [fault for fault in index.faults if fault.reason in LOST and fault.name == name]
    if listed is None or not whole:
        return index
    known = {f"{name}/{key}" for key in index.keys.tolist()}
    known |= {fault.name for fault in index.faults}
    lost = [f"{name}/{key}" for key in listed.keys.tolist()]
    faults = [
        BrokenSample(whole[0].reason, sample, whole[0].detail)
        for sample in dict.fromkeys(lost)
        if sample not in known
    ]
    if not faults:
        return index
    others = [fault for fault in index.faults if fault not in whole]
    return replace(index, faults=(*others, *faults))


def fits(index: ShardIndex, path: Path) -> bool:
    """Return whether a tar has the index's size, and headers where samples should be.

    Some samples are looked up, spread over the tar.
    """
    if path.stat().st_size != index.tar_bytes:
        return False
    numbers = np.linspace(0, len(index) - 1, min(len(index), _SAMPLES_COMPARED)).astype(int)
    with open(path, "rb", buffering=0) as stream:
        for number in numbers.tolist():
            for start, size in index.spans[number].tolist():
                if start < 0:
                    continue
                stream.seek(start - BLOCK)
                if not _is_header_of(stream.read(BLOCK), str(index.keys[number]), size):
                    return False
    return True


def _is_header_of(block: bytes, key: str, size: int) -> bool:
    try:
        header = parse_header(block)
    except (BadHeader, IndexError):
        return False
    # A longer name, and a larger size, stand in a header before this one.
    is_cut_short = len(header.name) >= 99
    same_name = is_cut_short or _key_and_suffix(header.name)[0] == key
    return header.kind in PLAIN_FILES and header.size == size and same_name


def store_index(path: Path, index: ShardIndex) -> None:
    """Store an index in the cache. If it cannot be written, only time is lost."""
    with suppress(OSError):
        write_json(path, index.to_json())


def read_index(path: Path, tar_bytes: int | None = None) -> ShardIndex | None:
    """Read the index stored at `path`; None when there is none that can be read.

    `tar_bytes` is the size of the tar, where it is known: an index is smaller than that.
    """
    try:
        # A header has 512 bytes and an entry of an index about 60: a larger file is a trap.
        if tar_bytes is not None and path.stat().st_size > max(tar_bytes, _SMALL_INDEX_BYTES):
            raise ValueError("it is larger than the shard")
        return ShardIndex.from_json(json.loads(path.read_bytes()))
    except OSError:
        return None
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, OverflowError) as fault:
        reason = str(fault).splitlines()[0][:100] if str(fault) else type(fault).__name__
        logger.warning("%s is not used (%s): the headers of the shard are read", path, reason)
        return None
