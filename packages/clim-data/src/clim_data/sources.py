"""Sources of samples: local tars by path, glob or list, and remote tars through fsspec or a pipe.

A remote shard is fetched whole into a cache folder when one of its samples is first wanted; at most
twice `cache_shards` of them stay there. Reading is then the same as for local files.
"""

import fcntl
import glob
import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from braceexpand import braceexpand
from tqdm import tqdm

from clim_data.report import BrokenSample, SkipReport
from clim_data.shards import ByteReader, RawSample, ShardIndex, index_tar, load_index, read_index, write_json

Sources = str | Path | Sequence[str | Path]


def default_cache_folder() -> Path:
    """`CLIM_DATA_CACHE`, or clim-data in the user's cache folder."""
    fallback = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "clim-data"
    return Path(os.environ.get("CLIM_DATA_CACHE", fallback))


def is_remote(source: str) -> bool:
    return source.startswith("pipe:") or "://" in source


def expand_sources(sources: Sources) -> list[str]:
    """Shard paths and URLs of a glob, folder, list or URL with braces, in a fixed order, each once.

    `{000..012}` and `{a,b}` are expanded in paths and URLs; a folder means every `*.tar` below it.

    Raises:
        FileNotFoundError: a path or glob matches nothing.
        ValueError: no source was given.
    """
    listed = [sources] if isinstance(sources, (str, Path)) else list(sources)
    shards: list[str] = []
    for source in map(str, listed):
        for item in braceexpand(source):
            if is_remote(item):
                shards.append(item)
            elif os.path.isdir(item):
                shards += _found(sorted(map(str, Path(item).rglob("*.tar"))), f"{item} holds no *.tar")
            else:
                shards += _found(sorted(glob.glob(item)), f"{item} matches no file")
    if not shards:
        raise ValueError("sources is empty: give at least one shard path, glob, folder or URL")
    return list(dict.fromkeys(shards))


def _found(paths: list[str], otherwise: str) -> list[str]:
    if not paths:
        raise FileNotFoundError(f"{otherwise}: check the path, or make shards with `clim-data pack`")
    return paths


class ShardCache:
    """Local copies of remote shards, shared by the processes of a machine; the oldest are dropped."""

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder / "shards", keep

    def path(self, url: str) -> Path:
        return self.folder / (hashlib.sha256(url.encode()).hexdigest()[:32] + ".tar")

    def fetch(self, url: str) -> Path:
        """Path of the local copy, downloaded first when it is not there.

        Raises:
            BrokenSample: the download failed; nothing half-written is left.
        """
        path = self.path(url)
        if not self._touch(path):
            with self._lock(path):
                if not self._touch(path):
                    self._drop_oldest()
                    self._download(url, path)
        return path

    def _touch(self, path: Path) -> bool:
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def _download(self, url: str, path: Path) -> None:
        part = path.with_suffix(f".part{os.getpid()}")
        try:
            with open_remote(url) as stream, open(part, "wb") as out:
                shutil.copyfileobj(stream, out, 1 << 20)
            os.replace(part, path)
        except ImportError:
            raise
        except Exception as fault:  # each protocol has its own errors
            part.unlink(missing_ok=True)
            raise BrokenSample("unreachable shard", url, f"{type(fault).__name__}: {fault}") from fault

    def _drop_oldest(self) -> None:
        held = []
        for path in self.folder.glob("*.tar"):
            try:
                held.append((path.stat().st_mtime_ns, path))
            except FileNotFoundError:
                continue  # another process dropped it
        for _, path in sorted(held)[: max(0, len(held) - self.keep + 1)]:
            path.unlink(missing_ok=True)

    @contextmanager
    def _lock(self, path: Path):
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def open_remote(url: str):
    """Binary stream of a `pipe:` command (through webdataset) or of an fsspec URL.

    Raises:
        ImportError: fsspec or its protocol package is missing.
    """
    if url.startswith("pipe:"):
        from webdataset.gopen import gopen

        return gopen(url, "rb")
    try:
        import fsspec
    except ImportError as fault:
        raise ImportError(f'{url} needs fsspec: pip install "clim-data[remote]"') from fault
    try:
        return fsspec.open(url, "rb").open()
    except ImportError as fault:
        raise ImportError(f'{url}: {fault}; pip install "clim-data[remote]"') from fault


class SampleStore:
    """All samples of a list of shards, numbered 0..n-1 in shard order, readable in any order.

    Args:
        sources: see `expand_sources`.
        on_error: "skip" leaves out broken shards and samples and names them in `skipped`; "raise" raises.
        cache_folder: where remote shards and large indexes are kept (default: `default_cache_folder()`).
        cache_shards: how many remote shards are used side by side; twice as many are kept.
    """

    def __init__(self, sources: Sources, *, on_error: str = "skip", cache_folder=None, cache_shards: int = 16):
        self.shards = expand_sources(sources)
        self.cache_folder = Path(cache_folder) if cache_folder else default_cache_folder()
        self.cache = ShardCache(self.cache_folder, 2 * cache_shards)
        self.remote = any(map(is_remote, self.shards))
        self.skipped = SkipReport()
        self._reader = ByteReader()
        bar = tqdm(self.shards, desc="indexing shards", unit="shard", delay=2, leave=False)
        self.indexes = [self._index(shard, on_error) for shard in bar]
        self.starts = np.cumsum([0] + [len(index) for index in self.indexes])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, i: int) -> RawSample:
        """Sample `i`, not decoded. BrokenSample when its shard has become unreadable."""
        shard = int(np.searchsorted(self.starts, i, side="right")) - 1
        index, place = self.indexes[shard], int(i - self.starts[shard])
        source, key = self.shards[shard], str(index.keys[place])
        name = f"{shard_name(source)}/{key}"
        spans = index.spans[place].tolist()
        try:
            path = self._local_copy(source, index) if is_remote(source) else source
            parts = [self._reader.read(path, *span) if span[0] >= 0 else None for span in spans]
        except OSError as fault:
            raise BrokenSample("cut shard", name, str(fault)) from fault
        return RawSample(name, key, *parts)

    def _local_copy(self, url: str, index: ShardIndex) -> Path:
        """Fetched shard; OSError when it is no longer the one that was indexed, or is dropped at once, repeatedly."""
        for _ in range(5):
            path = self.cache.fetch(url)
            with suppress(FileNotFoundError):  # another process made room in the cache
                if self._reader.size(path) != index.tar_bytes:
                    raise OSError(f"{url} has changed since it was counted: empty the cache {self.cache_folder}")
                return path
        raise OSError(f"{url} is dropped from {self.cache_folder} as soon as it is fetched: raise cache_shards")

    def fingerprint(self) -> str:
        """16 hex digits that change with the shards' order, sizes or sample keys; folders do not matter."""
        digest = hashlib.sha256()
        for source, index in zip(self.shards, self.indexes):
            digest.update(f"{shard_name(source)}|{index.tar_bytes}|{len(index)}|".encode())
            digest.update("\n".join(index.keys.tolist()).encode())
        return digest.hexdigest()[:16]

    def close(self) -> None:
        self._reader.close()

    def _index(self, source: str, on_error: str) -> ShardIndex:
        try:
            if is_remote(source):
                index = self._remote_index(source)
            else:
                index = load_index(Path(source), self.cache_folder)
        except BrokenSample as fault:
            index = ShardIndex(np.array([], dtype=np.str_), np.zeros((0, 3, 2), np.int64), (fault,), 0)
        if index.faults and on_error == "raise":
            raise index.faults[0]
        self.skipped.extend(index.faults)
        return index

    def _remote_index(self, url: str) -> ShardIndex:
        """Cached index, or one made from a first download (a remote shard's samples must be counted once)."""
        place = self.cache_folder / "index" / (self.cache.path(url).stem + ".json")
        index = read_index(place)
        if index is None:
            path = self.cache.fetch(url)
            index = index_tar(path, shard_name(url))
            if any(fault.reason in ("cut shard", "not a tar") for fault in index.faults):
                path.unlink(missing_ok=True)  # the next start asks again: it may still have been uploading
            else:
                write_json(place, index.to_json())
        return index


def shard_name(source: str) -> str:
    """Last part of a path or URL (of the whole command for a pipe)."""
    return source if source.startswith("pipe:") else source.rstrip("/").rpartition("/")[2]


def epoch_order(counts: Iterable[int], *, seed: int, epoch: int, window: int | None = None) -> np.ndarray:
    """Permutation of all sample numbers for one epoch, a pure function of its arguments.

    Args:
        counts: number of samples of each shard.
        window: None shuffles all samples globally. A number shuffles the shards, cuts their list into windows of
            that many, and shuffles the samples inside each window, so that few shards are open at a time.
    """
    counts = np.asarray(list(counts), dtype=np.int64)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
    if window is None:
        return rng.permutation(int(counts.sum()))
    starts = np.cumsum(counts) - counts
    shards = rng.permutation(len(counts))
    order = []
    for first in range(0, len(shards), window):
        members = [np.arange(starts[s], starts[s] + counts[s]) for s in shards[first : first + window]]
        order.append(rng.permutation(np.concatenate(members)))
    return np.concatenate(order)
