"""Sources of samples: local tars by path, glob or list, folders of images, and remote tars by
fsspec or a pipe.

A remote shard is fetched whole into a cache folder when one of its samples is first read; at most
twice `cache_shards` of them stay there. Reading is then the same as for local files.
"""

import hashlib
import os
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from clim_data.command_line.failures import full_disk
from clim_data.faults import BrokenSample, SkipReport
from clim_data.files.cache import default_cache_folder
from clim_data.sources.expand import Sources, expand_sources, is_remote, shard_name
from clim_data.sources.file_names import names_in_tar
from clim_data.sources.folders import FolderIndex
from clim_data.sources.indexes import LOST, ShardIndex, fits, index_tar, read_index, store_index
from clim_data.sources.packs import index_of_shard, with_missing_shards
from clim_data.sources.remote import ShardCache
from clim_data.sources.shards import ByteReader, RawSample

Index = ShardIndex | FolderIndex


class SampleStore:
    """All samples of a list of shards and image folders, numbered 0..n-1 in that order, readable in
    any order.

    Args:
        sources: see `expand_sources`.
        texts: skip samples without a txt or json in their shard, or without captions in their
            folder.
        on_error: "skip" skips broken shards and samples and names them in `skipped`; "raise"
            raises.
        cache_folder: folder for remote shards and large indexes (default:
            `default_cache_folder()`).
        cache_shards: number of remote shards in use at a time; twice as many stay in the cache.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        texts: bool = True,
        on_error: str = "skip",
        cache_folder: str | Path | None = None,
        cache_shards: int = 16,
    ):
        if not isinstance(cache_shards, int) or cache_shards < 1:
            raise ValueError(f"cache_shards={cache_shards!r} must be a whole number of at least 1")
        self.shards = with_missing_shards(expand_sources(sources), sources)
        self.cache_folder = Path(cache_folder) if cache_folder else default_cache_folder()
        self.cache = ShardCache(self.cache_folder, 2 * cache_shards)
        # Few remote shards are in use at a time, so the shuffle moves through them in windows.
        self.shuffle_window = cache_shards if any(map(is_remote, self.shards)) else None
        self.on_error, self.skipped = on_error, SkipReport()
        self._reader = ByteReader()
        bar = tqdm(self.shards, desc="indexing shards", unit="shard", delay=2, leave=False)
        self._number([self._index(shard, texts) for shard in bar])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _number(self, indexes: list[Index]) -> None:
        self.indexes, self.counts = indexes, [len(index) for index in indexes]
        self.starts = np.cumsum([0, *self.counts])

    def keep(self, kept: np.ndarray) -> None:
        """Remove samples for good: `kept`, bool (len(self),), says which stay. They are numbered
        anew."""
        parts = np.split(kept, self.starts[1:-1])
        self._number([index.take(part) for index, part in zip(self.indexes, parts, strict=True)])

    def report_fault(self, fault: BrokenSample) -> None:
        """Report a fault in `skipped`, or raise it, depending on `on_error`."""
        if self.on_error == "raise":
            raise fault
        self.skipped.add(fault)

    def note(self, fault: BrokenSample) -> None:
        """Call `report_fault`; the former name, for one release."""
        warnings.warn(
            "SampleStore.note is now report_fault: use that name",
            DeprecationWarning,
            stacklevel=2,
        )
        self.report_fault(fault)

    def read(self, i: int) -> RawSample:
        """Read sample `i`, not decoded.

        Raises:
            BrokenSample: its file or shard has gone, has changed since it was indexed, or cannot be
                read.
            OSError: the disk of the cache is full.
        """
        part = int(np.searchsorted(self.starts, i, side="right")) - 1
        index, place = self.indexes[part], int(i - self.starts[part])
        source, key = self.shards[part], str(index.keys[place])
        name = f"{shard_name(source)}/{key}"
        try:
            if isinstance(index, FolderIndex):
                return index.read(place, name, i)
            path = self._local_copy(source, index) if is_remote(source) else source
            if (size := self._reader.size(path)) > index.tar_bytes:
                detail = (
                    f"{source} has {size} bytes, not {index.tar_bytes} as when it was indexed; "
                    "start again"
                )
                raise BrokenSample("changed shard", name, detail)
            spans = index.spans[place].tolist()
            image = self._reader.read(path, *spans[0])
            text, meta = (self._reader.read(path, *s) if s[0] >= 0 else None for s in spans[1:])
        except OSError as fault:
            if full_disk(fault):
                raise
            raise BrokenSample("cut shard", name, str(fault)) from fault
        return RawSample(name, key, image, text, meta, number=i)

    def titles(self) -> list[str]:
        """Return the name of every sample, as `RawSample.name` has it."""
        names: list[str] = []
        for source, index in zip(self.shards, self.indexes, strict=True):
            title = shard_name(source)
            names += [f"{title}/{key}" for key in index.keys.tolist()]
        return names

    def read_meta(self, part: int, place: int) -> bytes:
        """Return the json of one sample of shard `part`, which must have one.

        Raises:
            BrokenSample: the shard has gone, has changed since it was indexed, or cannot be read.
        """
        index, source = self.indexes[part], self.shards[part]
        if isinstance(index, FolderIndex):
            raise ValueError(f"{source} is a folder: its samples have no json; name shards")
        try:
            path = self._local_copy(source, index) if is_remote(source) else source
            return self._reader.read(path, *index.spans[place, 2].tolist())
        except OSError as fault:
            name = f"{shard_name(source)}/{index.keys[place]}"
            raise BrokenSample("cut shard", name, str(fault)) from fault

    def _local_copy(self, url: str, index: ShardIndex) -> Path:
        """Fetched shard; OSError when it is no longer the one that was indexed, or is dropped at
        once, repeatedly."""
        for _ in range(5):
            path = self.cache.fetch(url)
            with suppress(FileNotFoundError):  # another process made room in the cache
                if self._reader.size(path) != index.tar_bytes:
                    raise OSError(
                        f"{url} has changed since it was counted: empty the cache "
                        f"{self.cache_folder}"
                    )
                return path
        raise OSError(
            f"{url} is dropped from {self.cache_folder} as soon as it is fetched: raise "
            "cache_shards"
        )

    def fingerprint(self) -> str:
        """Return 16 hex digits that change with the order, sizes or keys of the sources.

        The place of the sources does not matter.
        """
        digest = hashlib.sha256()
        for source, index in zip(self.shards, self.indexes):
            digest.update(f"{shard_name(source)}|{index.stamp()}|{len(index)}|".encode())
            digest.update("\n".join(index.keys.tolist()).encode())
        return digest.hexdigest()[:16]

    def close(self) -> None:
        """Close the files of all shards."""
        self._reader.close()

    def _index(self, source: str, texts: bool) -> Index:
        index: Index
        try:
            if is_remote(source):
                index = self._remote_index(source)
            elif os.path.isdir(source):
                index = FolderIndex.of(source)
            else:
                index = index_of_shard(Path(source), self.cache_folder)
        except BrokenSample as fault:
            index = ShardIndex.empty(fault)

        if texts and not index.has_text.all():
            for key in index.keys[~index.has_text].tolist():
                missing = "no txt or json"
                if isinstance(index, FolderIndex):
                    missing = index.why_no_captions(key)
                self.report_fault(
                    BrokenSample("incomplete sample", f"{shard_name(source)}/{key}", missing)
                )
            index = index.take(index.has_text)

        for each in index.faults:
            self.report_fault(each)
        if texts and isinstance(index, FolderIndex):
            for each in index.table_faults:
                self.report_fault(each)
        return index

    def _remote_index(self, url: str) -> ShardIndex:
        """Cached index, or one made from a first download (a remote shard's samples must be counted
        once)."""
        place = self.cache_folder / "index" / (self.cache.path(url).stem + ".json")
        index = read_index(place)
        if index is not None:
            local = self.cache.path(url)
            with suppress(FileNotFoundError):  # it is fetched when one of its samples is read
                if local.stat().st_size == index.tar_bytes and not fits(index, local):
                    local.unlink(missing_ok=True)  # a copy with holes, after a loss of power
            return index

        path = self.cache.fetch(url)
        index = index_tar(path, shard_name(url))
        # While the shard is here: records that name images would fetch it again.
        index = replace(index, names=names_in_tar(path, index))
        if any(fault.reason in LOST for fault in index.faults):
            # The next start asks again: it may still have been uploading.
            path.unlink(missing_ok=True)
        else:
            store_index(place, index)
        return index
