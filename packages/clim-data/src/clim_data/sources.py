"""Sources of samples: local tars by path, glob or list, folders of images, and remote tars by fsspec or a pipe.

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

from clim_data.folders import FolderIndex, image_files
from clim_data.report import BrokenSample, SkipReport
from clim_data.shards import ByteReader, RawSample, ShardIndex, index_tar, load_index, read_index, write_json

Sources = str | Path | Sequence[str | Path]
Index = ShardIndex | FolderIndex


def default_cache_folder() -> Path:
    """`CLIM_DATA_CACHE`, or clim-data in the user's cache folder."""
    fallback = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "clim-data"
    return Path(os.environ.get("CLIM_DATA_CACHE", fallback))


def is_remote(source: str) -> bool:
    return source.startswith("pipe:") or "://" in source


def expand_sources(sources: Sources) -> list[str]:
    """Shard paths, URLs and image folders of a glob, folder, list or URL with braces, in a fixed order, each once.

    `{000..012}` and `{a,b}` are expanded in paths and URLs. A folder means every `*.tar` below it; one without any
    is itself a source, if it holds images.

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
                shards += _of_folder(item)
            else:
                found = _found(sorted(glob.glob(item)), f"{item} matches no file")
                shards += [name for path in found for name in (_of_folder(path) if os.path.isdir(path) else [path])]
    if not shards:
        raise ValueError("sources is empty: give at least one shard path, glob, folder or URL")
    return list(dict.fromkeys(shards))


def _of_folder(folder: str) -> list[str]:
    tars = sorted(map(str, Path(folder).rglob("*.tar")))
    if tars:
        return tars
    return _found([os.path.abspath(folder)] if image_files(folder) else [], f"{folder} holds no *.tar and no image")


def _found(paths: list[str], otherwise: str) -> list[str]:
    if not paths:
        raise FileNotFoundError(f"{otherwise}: check the path; name shards (tars) or a folder of jpg, png or webp")
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
    """All samples of a list of shards and image folders, numbered 0..n-1 in that order, readable in any order.

    Args:
        sources: see `expand_sources`.
        texts: leave out samples without a txt or json in their shard, without captions in their folder.
        on_error: "skip" leaves out broken shards and samples and names them in `skipped`; "raise" raises.
        cache_folder: where remote shards and large indexes are kept (default: `default_cache_folder()`).
        cache_shards: how many remote shards are used side by side; twice as many are kept.
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
        self.shards = expand_sources(sources)
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
        """Leave out samples for good: `kept` is bool (len(self),). Those that stay are numbered anew."""
        parts = np.split(kept, self.starts[1:-1])
        self._number([index.take(part) for index, part in zip(self.indexes, parts, strict=True)])

    def note(self, fault: BrokenSample) -> None:
        """Name what is left out in `skipped`, or raise it, as `on_error` says."""
        if self.on_error == "raise":
            raise fault
        self.skipped.add(fault)

    def read(self, i: int) -> RawSample:
        """Sample `i`, not decoded.

        Raises:
            BrokenSample: its file or shard has gone, has changed since it was indexed, or cannot be read.
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
                detail = f"{source} has {size} bytes, not {index.tar_bytes} as when it was indexed; start again"
                raise BrokenSample("changed shard", name, detail)
            spans = index.spans[place].tolist()
            parts = [self._reader.read(path, *span) if span[0] >= 0 else None for span in spans]
        except OSError as fault:
            raise BrokenSample("cut shard", name, str(fault)) from fault
        return RawSample(name, key, *parts, number=i)

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
        """16 hex digits that change with the order, sizes or keys of the sources; where they lie does not matter."""
        digest = hashlib.sha256()
        for source, index in zip(self.shards, self.indexes):
            digest.update(f"{shard_name(source)}|{index.stamp()}|{len(index)}|".encode())
            digest.update("\n".join(index.keys.tolist()).encode())
        return digest.hexdigest()[:16]

    def close(self) -> None:
        self._reader.close()

    def _index(self, source: str, texts: bool) -> Index:
        try:
            if is_remote(source):
                index = self._remote_index(source)
            elif os.path.isdir(source):
                index = FolderIndex.of(source)
            else:
                index = load_index(Path(source), self.cache_folder)
        except BrokenSample as fault:
            index = ShardIndex(np.array([], dtype=np.str_), np.zeros((0, 3, 2), np.int64), (fault,), 0)
        if texts and not index.has_text.all():
            missing = "no captions beside it" if isinstance(index, FolderIndex) else "no txt or json"
            for key in index.keys[~index.has_text].tolist():
                self.note(BrokenSample("incomplete sample", f"{shard_name(source)}/{key}", missing))
            index = index.take(index.has_text)
        for fault in index.faults:
            self.note(fault)
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
