"""Signals and the end of worker processes.

A scheduler or a terminal signals whole groups of processes. A training that wants to finish its
step and save must not lose its workers meanwhile: their death is an error in the main process.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


@contextmanager
def sigterm_held_back() -> Iterator[None]:
    """Start workers inside: all their threads inherit that SIGTERM is blocked.

    In this process a SIGTERM comes when the block ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_parent(worker: int) -> None:
    """Ignore SIGINT in this worker, and end at a SIGTERM only if the parent sent it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_when_parent_says, daemon=True, name="clim-data-signals").start()


def _end_when_parent_says() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


@contextmanager
def workers_ended_on_error(pool: ProcessPoolExecutor) -> Iterator[None]:
    """End the workers of a pool at once on an error, because nobody will use their work."""
    others = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise


def end_with_parent(parent: int, *, every_s: float = 0.5) -> None:
    """End this process soon after its parent, however the parent ended.

    A worker of a pool cannot notice it otherwise: it holds both ends of its pipes.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every_s)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="clim-data-parent").start()


def end_with_starter() -> None:
    """End this worker of a fork server soon after the process that started it, however that process
    ended.

    Its parent, the server, would live as long as its workers do.
    """
    starter = multiprocessing.parent_process()
    assert starter is not None  # a worker has one

    def watch() -> None:
        starter.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="clim-data-starter").start()
