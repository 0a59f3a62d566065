"""Items of a data set from worker processes: a failed worker raises an error and never hangs.

torch's DataLoader hands items over in a background thread of the worker. Where that thread fails,
for example because shared memory is full, it prints a traceback and drops the item, and the main
process waits for it for ever. Here the worker itself packs each item, before torch takes it:
tensors go to shared memory, and a few bytes that name them go through the queue. So each failure
happens where it can be caught, and is sent in place of the item.
"""

import errno
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any, Protocol, cast

import torch
from torch.utils.data import DataLoader, Dataset, default_convert

from clim_data.processes.worker_signals import leave_signals_to_parent, sigterm_held_back

SHARED_MEMORY = "/dev/shm"
LEAST_BYTES = 1 << 16
"""Shared memory for the locks of the workers' queues, with a margin."""

_FULL_SHARED_MEMORY = (
    "shared memory",
    "unable to resize file",
    "unable to mmap",
    os.strerror(errno.ENOSPC).lower(),
)


class Items(Protocol):
    """A map-style data set."""

    def __getitem__(self, index: Any, /) -> Any: ...


class WorkerError(RuntimeError):
    """A worker process that ended, or could not send an item."""


class SharedMemoryError(WorkerError):
    """Shared memory that has no room for an item."""

    def __init__(self, event: str) -> None:
        room = ""
        with suppress(OSError):
            disk = shutil.disk_usage(SHARED_MEMORY)
            room = f" ({disk.free / 1e6:,.1f} of {disk.total / 1e6:,.1f} MB are free)"
        super().__init__(
            f"{event}: no room in shared memory, {SHARED_MEMORY}{room}\n"
            "make it larger (docker run --shm-size 8g), or use fewer workers or none"
        )


def load_in_workers(
    data: Items,
    order: Sequence[Any],
    *,
    workers: int,
    batch_size: int | None = None,
    collate: Callable[[Any], Any] = default_convert,
    seed: int = 0,
) -> Iterator[Any]:
    """Start the workers, and return an iterator over the items of a map-style data set.

    Deleting the iterator ends the workers.

    Args:
        order: indices of `data` in the order in which their items come.
        workers: processes; 0 makes the items in this one.
        batch_size: items per list that `collate` gets; None gives it one item at a time.
        collate: makes the result of an item, or of a list of items. It runs in the worker.
        seed: of the workers' own random numbers. The main process draws none for them.

    Raises:
        SharedMemoryError: shared memory has no room, now or later.
        WorkerError: a worker ended, or an item cannot be sent. torch notices some of these first
            and raises a RuntimeError.
    """
    if workers:
        _need_shared_memory()
    with warnings.catch_warnings():
        # The user chose the number of workers, also where it exceeds the CPUs.
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        loader = DataLoader(
            cast(Dataset, data),  # it needs no more than items by index
            batch_size=batch_size,
            sampler=order,
            num_workers=workers,
            collate_fn=_Packed(collate) if workers else collate,
            generator=torch.Generator().manual_seed(seed),
            worker_init_fn=leave_signals_to_parent,
        )
        with sigterm_held_back():
            items = iter(loader)  # starts the workers
    return _unpacked(items) if workers else items


def _need_shared_memory() -> None:
    """Raise SharedMemoryError where the workers cannot even be started."""
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:  # another system, which has it elsewhere
        return
    if free < LEAST_BYTES:
        raise SharedMemoryError("the worker processes cannot be started")


@dataclass(frozen=True)
class _Unsent:
    """The error that stopped an item from being sent."""

    fault: str


class _Packed:
    """A collate function whose result is packed in the worker, where a failure can be caught.

    A thread of the worker hands over the tensors of packed items, and needs an open file for each
    connection. Without one it would try for ever, and the main process would wait for it. So a
    spare file is closed when there are no more, and nothing is packed from then on.
    """

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self.collate = collate
        self._spare: int | None = None
        self._failed: _Unsent | None = None

    def __call__(self, items: Any) -> bytes | _Unsent:
        made = self.collate(items)
        if self._failed is not None:
            return self._failed

        try:
            if self._spare is None:
                self._spare = os.open(os.devnull, os.O_RDONLY)
            # torch.utils.data has taught this pickler to put tensors into shared memory.
            packed = bytes(ForkingPickler.dumps(made))
            os.close(os.open(os.devnull, os.O_RDONLY))  # the thread can open one, too
            return packed
        except Exception as error:
            self._failed = _Unsent(f"{type(error).__name__}: {error}")
            if self._spare is not None:
                os.close(self._spare)
            return self._failed


def _unpacked(items: Iterator[bytes | _Unsent]) -> Iterator[Any]:
    try:
        for item in items:
            yield _unpack(item)
    finally:
        del items  # ends the workers at once, though an error may hold this frame for long


def _unpack(item: bytes | _Unsent) -> Any:
    if isinstance(item, _Unsent):
        raise _error_of(item.fault)
    try:
        return ForkingPickler.loads(item)
    except (ConnectionError, EOFError, FileNotFoundError) as error:
        raise WorkerError(
            "a worker process exited unexpectedly or ran out of open files before it handed over "
            "its item"
        ) from error
    except (OSError, RuntimeError) as error:
        raise _error_of(f"{type(error).__name__}: {error}") from error


def _error_of(fault: str) -> WorkerError:
    """Return the error for a library's message about an item that was not sent."""
    text = fault.lower()
    full_table = os.strerror(errno.EMFILE).lower() in text
    if not full_table and any(part in text for part in _FULL_SHARED_MEMORY):
        return SharedMemoryError("a worker process could not hand over its item")
    return WorkerError(f"a worker process could not hand over its item ({fault})")
