"""The manifest of `clim-data pack`, for readers of its shards."""

import fnmatch
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from braceexpand import braceexpand

from clim_data.faults import BrokenSample
from clim_data.files.stamps import FileStamp, file_stamp
from clim_data.sources.expand import Sources, is_remote
from clim_data.sources.indexes import INDEX_SUFFIX, ShardIndex, load_index, read_index

MANIFEST = "pack.json"
MOST_NAMED = 100_000  # missing samples of one shard; a manifest from elsewhere may say anything
UNFINISHED = "its pack was not finished: run the same `clim-data pack` again"


@dataclass(frozen=True)
class PackedShard:
    """One line of a manifest: samples and bytes of a shard, None before the pack is finished."""

    samples: int | None = None
    bytes: int | None = None


def read_manifest(folder: Path) -> dict | None:
    """Return the content of the manifest of a folder, None where there is none to read."""
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def packed_shards(folder: Path) -> Mapping[str, PackedShard]:
    """Return the shards that the manifest of a folder lists, by name; none without a manifest.

    Manifests of earlier releases do not list shards.
    """
    # Asked for each shard of the folder: a pack of 3,000 must not parse 3,000 lines as often.
    return _packed_shards(folder, file_stamp(folder / MANIFEST))


@lru_cache(maxsize=16)
def _packed_shards(folder: Path, stamp: FileStamp | None) -> Mapping[str, PackedShard]:
    if stamp is None:
        return {}
    try:
        shards = {}
        for name, counts in (read_manifest(folder) or {})["shards"].items():
            if os.path.basename(name) != name or not name.endswith(".tar"):
                return {}
            samples, size = (None, None) if counts is None else (int(n) for n in counts)
            shards[name] = PackedShard(samples, size)
        return shards
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def with_missing_shards(found: list[str], sources: Sources) -> list[str]:
    """Add the missing shards that a manifest lists and `sources` name.

    They have the places of existing shards. `sources` name a shard by its folder, a folder above
    it, or a pattern that fits its path.
    """
    listed = [sources] if isinstance(sources, (str, Path)) else list(sources)
    patterns = [item for source in map(str, listed) for item in braceexpand(source)]
    there = set(found)
    folders: dict[str, list[str]] = {}
    for shard in found:
        folder = os.path.dirname(shard)
        if is_remote(shard) or not shard.endswith(".tar") or folder in folders:
            continue
        expected = [os.path.join(folder, name) for name in packed_shards(Path(folder))]
        folders[folder] = [
            path
            for path in expected
            if path not in there and not os.path.exists(path) and _asked_for(path, patterns)
        ]
    if not any(folders.values()):
        return found

    result = []
    for shard in found:
        missing = folders.get(os.path.dirname(shard), [])
        while missing and missing[0] < shard:
            result.append(missing.pop(0))
        result.append(shard)
    for missing in folders.values():
        result += missing
    return result


def _asked_for(path: str, patterns: Iterable[str]) -> bool:
    absolute = os.path.abspath(path)
    for pattern in patterns:
        if is_remote(pattern):
            continue
        if os.path.isdir(pattern):
            if absolute.startswith(os.path.join(os.path.abspath(pattern), "")):
                return True
        elif fnmatch.fnmatch(path, pattern):
            return True
    return False


def index_of_shard(path: Path, cache_folder: Path | None) -> ShardIndex:
    """Return the index of a local shard; `faults` has everything that is missing.

    A shard that its folder's manifest lists is compared with it: one that is not there, or is not
    the one that was packed, is a fault.
    """
    packed = packed_shards(path.parent).get(path.name)
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        return ShardIndex.empty(BrokenSample("unreadable shard", path.name, "not a file"))
    try:
        index = load_index(path, cache_folder)
    except FileNotFoundError:
        return ShardIndex.empty(*_missing_samples(path, packed or PackedShard()))
    except OSError as fault:
        reason = fault.strerror or str(fault)
        return ShardIndex.empty(BrokenSample("unreadable shard", path.name, reason))
    if packed is None or packed.samples is None:
        return index
    return replace(index, faults=(*index.faults, *_differences(index, path.name, packed)))


def _differences(index: ShardIndex, name: str, packed: PackedShard) -> list[BrokenSample]:
    if (len(index), index.tar_bytes) == (packed.samples, packed.bytes):
        return []
    lost = (packed.samples or 0) - len(index)
    named = sum(fault.name.startswith(f"{name}/") for fault in index.faults)
    if named >= lost > 0:
        return []
    detail = (
        f"{len(index):,} samples and {index.tar_bytes:,} bytes, {packed.samples:,} and "
        f"{packed.bytes:,} when it was packed: run the same `clim-data pack` again"
    )
    return [BrokenSample("changed shard", name, detail)]


def _missing_samples(path: Path, packed: PackedShard) -> list[BrokenSample]:
    """One fault for each sample of a shard that is not there."""
    if packed.samples is None:
        detail = UNFINISHED if packed_shards(path.parent) else "no such file"
        return [BrokenSample("missing shard", path.name, detail)]

    detail = f"no file {path}; run the same `clim-data pack` again, or copy it"
    index = read_index(path.with_name(path.name + INDEX_SUFFIX))
    if index is not None and len(index):
        names = index.keys.tolist()
    elif 0 < packed.samples <= MOST_NAMED:
        names = [f"sample {number} of {packed.samples}" for number in range(1, packed.samples + 1)]
    else:
        detail = f"{packed.samples:,} samples; {detail}"
        return [BrokenSample("missing shard", path.name, detail)]
    return [BrokenSample("missing shard", f"{path.name}/{name}", detail) for name in names]
