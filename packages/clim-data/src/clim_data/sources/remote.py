"""Remote shards: opened as streams, or stored in a cache on this machine."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clim_data.faults import BrokenSample
from clim_data.files.atomic import write_whole


class ShardCache:
    """Local copies of remote shards, shared by the processes of a machine; the oldest are
    dropped."""

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder / "shards", keep

    def path(self, url: str) -> Path:
        """Return where the local copy of a shard is, or will be."""
        return self.folder / (hashlib.sha256(url.encode()).hexdigest()[:32] + ".tar")

    def fetch(self, url: str) -> Path:
        """Return the path of the local copy, downloaded first if it is not there.

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
        try:
            with (
                write_whole(path, sync=False) as draft,
                open_remote(url) as stream,
                open(draft, "wb") as out,
            ):
                shutil.copyfileobj(stream, out, 1 << 20)
        except ImportError:
            raise
        except Exception as fault:  # each protocol has its own errors
            raise BrokenSample(
                "unreachable shard", url, f"{type(fault).__name__}: {fault}"
            ) from fault

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
    def _lock(self, path: Path) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def open_remote(url: str) -> Any:
    """Open a binary stream of a `pipe:` command (through webdataset) or of an fsspec URL.

    Raises:
        ImportError: fsspec or its protocol package is missing.
    """
    if url.startswith("pipe:"):
        from webdataset.gopen import gopen

        return gopen(url, "rb")
    try:
        import fsspec
    except ImportError as fault:
        raise ImportError(f'{url} needs fsspec: pip install "fsspec[http,s3]"') from fault
    try:
        return fsspec.open(url, "rb").open()
    except ImportError as fault:
        raise ImportError(f'{url}: {fault}; pip install "fsspec[http,s3]"') from fault
