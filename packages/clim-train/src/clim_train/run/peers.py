"""Ranks that end together: agreed decisions, and an error on one rank that ends all of them, never
a hang.

A rank that fails writes its error to the store of the process group and leaves. The others are, or
soon will be, inside a collective that waits for it. With gloo that fails when the connection
closes; with NCCL it would wait until the timeout. So a thread on every rank looks at the store once
a second, gives its main thread a moment to come out by itself, and otherwise ends the process. What
dies without a word (SIGKILL) is left to the launcher and the timeout.
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
    """The problem of the lowest rank that has one, with its rank; None when no rank has.
    Collective."""
    found = [(rank, text) for rank, text in enumerate(gather_objects(problem)) if text is not None]
    if not found:
        return None
    rank, text = found[0]
    return text if Ranks.of_group().is_single else f"rank {rank}: {text}"


def error_of(action: Callable[[], Any]) -> str | None:
    """Runs what may fail for want of disk or rights; the error as text, or None."""
    try:
        action()
    except (OSError, RuntimeError) as error:
        return (
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        )
    return None


@contextmanager
def failures_shared() -> Iterator[None]:
    """Inside, an error on one rank ends all of them: with that error there, with `PeerFailedError` on
    the others.

    An `AgreedError` passes as it is. Entered on every rank after the process group began; nested
    uses do nothing.
    """
    if Ranks.of_group().is_single or _Board.active:
        yield
        return
    board = _Board()
    try:
        yield
        dist.barrier()  # rank 0 keeps the store: it must not leave while others look at it
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
    """The first failure of all ranks, in the store of the process group, and the thread that looks
    at it."""

    active = False
    _uses = 0

    def __init__(self) -> None:
        _Board.active, _Board._uses = True, _Board._uses + 1
        store = dist.distributed_c10d._get_default_store()
        self._store = dist.PrefixStore(f"clim_train/failures/{_Board._uses}", store)
        self._rank, self._world = Ranks.of_group()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="clim-train-peers")
        self._thread.start()

    def announce(self, error: BaseException) -> str | None:
        """Says that this rank failed; returns the message of the rank that did so before, if one
        did."""
        mine = f"rank {self._rank} failed with {type(error).__name__}: {error}"
        try:
            first = self._store.compare_set("first", "", mine).decode()
            if first != mine:
                return first
            self._store.add("seen", 1)
            deadline = time.monotonic() + SEEN_S
            while self._store.add("seen", 0) < self._world and time.monotonic() < deadline:
                time.sleep(POLL_S / 10)
        except (RuntimeError, OSError):
            return None if self._rank == 0 else "rank 0, which keeps the store, is gone"
        return None

    def end(self) -> None:
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
