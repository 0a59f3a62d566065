"""Ranks that end together: agreed decisions, and an error on one rank that ends all of them.

A rank that fails writes its error to the store of the process group and leaves. The others are, or
soon will be, inside a collective that waits for it. With gloo that fails when the connection
closes; with NCCL it would wait until the timeout. So a thread on every rank looks at the store once
a second, gives its main thread a moment to come out by itself, and otherwise ends the process. A
rank that is killed (SIGKILL) writes nothing: the launcher or the timeout ends the others.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from clim_data.processes import Ranks, gather_objects

POLL_S, SEEN_S, GRACE_S = 1.0, 5.0, 10.0
_FAILED = 1


class AgreedError(Exception):
    """Raised on every rank at the same point of the training, so that collectives still work
    afterwards."""


class PeerFailedError(RuntimeError):
    """Another rank failed first; the message names it and its error."""


def first_problem(problem: str | None) -> str | None:
    """Return the problem of the lowest rank that has one, with its rank, or None. Collective."""
    for rank, text in enumerate(gather_objects(problem)):
        if text is not None:
            return text if Ranks.of_group().is_single else f"rank {rank}: {text}"
    return None


def error_of(action: Callable[[], Any]) -> str | None:
    """Run an action that can fail for lack of disk space or rights; return the error as text, or
    None."""
    try:
        action()
    except (OSError, RuntimeError) as error:
        first_line = (str(error).splitlines() or ["no message"])[0]
        return f"{type(error).__name__}: {first_line}"
    return None


@contextmanager
def failures_shared() -> Iterator[None]:
    """Let an error on one rank inside the context end all of them.

    That rank ends with its error, the others with `PeerFailedError`. An `AgreedError` passes as it
    is. Enter it on every rank after the process group began; nested uses do nothing.
    """
    if Ranks.of_group().is_single or _Board.active:
        yield
        return

    board = _Board()
    try:
        yield
        # Rank 0 keeps the store: it must not leave while others look at it.
        dist.barrier()
    except AgreedError:
        raise
    except BaseException as error:
        first = board.announce(error)
        if first is not None:
            raise PeerFailedError(f"{first}; this rank ends, too") from error
        raise
    finally:
        board.end()


class _Board:
    """The first failure of all ranks, in the process group's store, and the thread that reads
    it."""

    active = False
    _uses = 0

    def __init__(self) -> None:
        _Board.active = True
        _Board._uses += 1
        # Private to torch (tried with 2.11): no public function returns the store of the group.
        store = dist.distributed_c10d._get_default_store()
        self._store = dist.PrefixStore(f"clim_train/failures/{_Board._uses}", store)
        self._rank, self._world = Ranks.of_group()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="clim-train-peers")
        self._thread.start()

    def announce(self, error: BaseException) -> str | None:
        """Say that this rank failed; return the message of the rank that failed before, if any."""
        own = f"rank {self._rank} failed with {type(error).__name__}: {error}"
        try:
            first = self._store.compare_set("first", "", own).decode()
            if first != own:
                return first

            # The store ends with rank 0: give the others time to read it.
            self._store.add("seen", 1)
            deadline = time.monotonic() + SEEN_S
            while self._store.add("seen", 0) < self._world and time.monotonic() < deadline:
                time.sleep(POLL_S / 10)
        except (RuntimeError, OSError):
            return None if self._rank == 0 else "rank 0, which keeps the store, is gone"
        return None

    def end(self) -> None:
        """Stop the thread."""
        self._ended.set()
        self._thread.join(timeout=2 * POLL_S)
        _Board.active = False

    def _watch(self) -> None:
        while not self._ended.wait(POLL_S):
            try:
                if not self._store.check(["first"]):
                    continue
                first = self._store.get("first").decode()
                self._store.add("seen", 1)
            except (RuntimeError, OSError):
                first = "rank 0, which keeps the store, is gone"
            if first.startswith(f"rank {self._rank} "):
                return
            if not self._ended.wait(GRACE_S):
                print(f"{first}; rank {self._rank} ends, too", file=sys.stderr, flush=True)
                os._exit(_FAILED)
            return
