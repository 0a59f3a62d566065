"""One writer at a time in a run folder: a lock that the kernel drops when its process ends."""

import fcntl
import logging
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clim_data.processes import Ranks

from clim_train.run.peers import AgreedError, first_problem

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"

# Real path of a folder -> open lock file, and how often this process holds it. POSIX locks belong
# to a process: a second file of the same process would give the lock away when it is closed.
_held: dict[str, tuple[int, int]] = {}


class FolderInUseError(AgreedError, ValueError):
    """Another process writes to the run folder."""


@contextmanager
def only_writer(folder: str | Path) -> Iterator[None]:
    """Hold the lock of a run folder inside the context; see `hold`. Collective."""
    hold(folder)
    try:
        yield
    finally:
        release(folder)


def hold(folder: str | Path) -> None:
    """Take the lock of a run folder for this process, which may hold it already. Collective.

    Rank 0 takes it for all ranks. Worker processes do not inherit it. Raises FolderInUseError on
    every rank where another process holds it; then nothing in the folder has changed.
    """
    problem = _acquire(Path(folder)) if Ranks.of_group().is_first else None
    found = first_problem(problem)
    if found is not None:
        raise FolderInUseError(found.removeprefix("rank 0: "))


def release(folder: str | Path) -> None:
    """Release the lock of one `hold`. A folder that contains only the lock file is removed."""
    key = os.path.realpath(folder)
    if key not in _held:
        return
    file, uses = _held[key]
    if uses > 1:
        _held[key] = (file, uses - 1)
        return

    del _held[key]
    if os.path.isdir(key) and os.listdir(key) == [LOCK_FILE]:
        with suppress(OSError):
            os.unlink(os.path.join(key, LOCK_FILE))
            os.rmdir(key)
    os.close(file)


def _acquire(folder: Path) -> str | None:
    """Take the lock, or return who holds it."""
    key = os.path.realpath(folder)
    if key in _held:
        file, uses = _held[key]
        _held[key] = (file, uses + 1)
        return None

    while True:
        file = _open(Path(key))
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            owner = os.pread(file, 200, 0).decode(errors="replace").strip()
            os.close(file)
            return f"another process ({owner or 'unknown'}) is writing to {folder}: wait for it"
        except OSError as error:
            logger.warning("%s cannot be locked (%s): start one process only", folder, error)

        # The process that held it before may have removed the file meanwhile.
        with suppress(FileNotFoundError):
            if os.fstat(file).st_ino == os.stat(Path(key) / LOCK_FILE).st_ino:
                break
        os.close(file)

    os.ftruncate(file, 0)
    os.pwrite(file, f"id {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    _held[key] = (file, 1)
    return None


def _open(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    # Never through a link, and without a wait for the other end of a pipe.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    file = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise ValueError(f"{path} is no file: delete it")
    return file
