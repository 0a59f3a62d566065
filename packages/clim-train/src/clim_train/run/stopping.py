"""Stopping on SIGTERM or SIGINT: all ranks finish the same step and save a checkpoint."""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

import torch
import torch.distributed as dist
from clim_data.processes import Ranks

from clim_train.run.peers import AgreedError

EXIT_STOPPED = 75
"""Exit status of a stopped run that can be resumed: EX_TEMPFAIL of sysexits.h, "try again
later"."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class TrainingStopped(AgreedError):
    """The run was asked to stop; its checkpoint of `step` is saved.

    `program` is the command to name in the message.
    """

    def __init__(self, step: int, folder: object, program: str = "clim-train") -> None:
        super().__init__(
            f"stopped at step {step}, checkpoint saved: `{program} resume {folder}` continues"
        )
        self.step = step


Handler = Callable[[int, FrameType | None], Any] | int | None
"""What `signal.signal` takes and returns."""


class StopRequest:
    """A context in which the first SIGTERM or SIGINT sets `asked`.

    A later one ends the process at once, as if it were not handled. In threads other than the main
    one nothing is handled.

    Args:
        same_s: seconds in which further signals count as the first. A launcher that gets a signal
            sends it on to processes that got it, too.
    """

    def __init__(self, same_s: float = 2.0) -> None:
        self.asked = False
        self._same_s = same_s
        self._first_at = 0.0
        self._before: dict[int, Handler] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.asked:
            self.asked = True
            self._first_at = now
        elif now - self._first_at > self._same_s:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


class StopVote:
    """The question whether any rank was asked to stop, with the same answer on every rank.

    Each call starts a reduction of one number over a group of its own, on the host, and answers
    with the result of the call before. By then all ranks have long sent their part, so nothing
    waits, and the device is not involved. A rank that is asked between two calls stops all of them
    one step later.
    """

    def __init__(self, request: StopRequest) -> None:
        self._request = request
        self._group: dist.ProcessGroup | None = None
        if not Ranks.of_group().is_single:
            group = dist.new_group(backend="gloo")
            # A number stands for a group that this rank is not in.
            assert isinstance(group, dist.ProcessGroup)
            self._group = group
        self._running: tuple[dist.Work, torch.Tensor] | None = None

    def stop(self) -> bool:
        """Return the answer of the step before. Call it once per step; collective, in the
        background."""
        if self._group is None:
            return self._request.asked
        answer = self._finish()
        asked = torch.tensor([float(self._request.asked)])
        work = dist.all_reduce(asked, dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None  # this rank is in the group
        self._running = (work, asked)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        # After an error of this rank alone the others are elsewhere, and nothing can be ended
        # together.
        if self._group is not None and (kind is None or issubclass(kind, AgreedError)):
            self._finish()
            dist.destroy_process_group(self._group)
            self._group = None

    def _finish(self) -> bool:
        if self._running is None:
            return False
        work, asked = self._running
        self._running = None
        work.wait()
        return bool(asked.item())
