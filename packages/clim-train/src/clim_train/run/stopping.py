"""Stopping on SIGTERM or SIGINT: the step is finished, a checkpoint saved, on all ranks at the same
step."""

import os
import signal
import threading
import time
from types import FrameType

import torch
import torch.distributed as dist
from clim_data.processes import Ranks

from clim_train.run.peers import AgreedError

EXIT_STOPPED = 75
"""Exit status of a run that was asked to stop and can be resumed: EX_TEMPFAIL of sysexits.h, "try
again later"."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class TrainingStopped(AgreedError):
    """The run was asked to stop; its checkpoint of `step` is saved. `program`: whose `resume`
    continues it."""

    def __init__(self, step: int, folder: object, program: str = "clim-train"):
        super().__init__(
            f"stopped at step {step}, checkpoint saved: `{program} resume {folder}` continues"
        )
        self.step = step


class StopRequest:
    """Inside, the first SIGTERM or SIGINT sets `asked`; a later one ends the process at once, as if
    not handled.

    Args:
        same_s: signals within so many seconds of the first count as the first. A launcher that gets
            one sends it on to processes that got it, too.

    In threads other than the main one nothing is handled.
    """

    def __init__(self, same_s: float = 2.0):
        self.asked = False
        self._same_s, self._first_at = same_s, 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.asked:
            self.asked, self._first_at = True, now
        elif now - self._first_at > self._same_s:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


class StopVote:
    """Whether any rank was asked to stop, with the same answer on every rank at the same step.

    Each call starts a reduction of one number over a group of its own, on the host, and answers
    with the result of the call before. By then all ranks have long sent their part, so nothing
    waits, and the device is not involved. A rank that is asked between two calls stops all of them
    one step later.
    """

    def __init__(self, request: StopRequest):
        self._request = request
        self._group = None if Ranks.of_group().is_single else dist.new_group(backend="gloo")
        self._running: tuple[dist.Work, torch.Tensor] | None = None

    def stop(self) -> bool:
        """Call once per step. Collective, in the background."""
        if self._group is None:
            return self._request.asked
        answer = self._finish()
        asked = torch.tensor([float(self._request.asked)])
        self._running = (
            dist.all_reduce(asked, dist.ReduceOp.MAX, group=self._group, async_op=True),
            asked,
        )
        return answer

    def __enter__(self) -> "StopVote":
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
