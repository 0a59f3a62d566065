"""Stopping on SIGTERM or SIGINT: all ranks finish the same step and save a checkpoint."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ClassVar, Self

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


class NoCheckpointError(RuntimeError):
    """The run was asked to stop while it waited for data, and could not save: others wait for it in
    the middle of a step, or no step is finished."""

    def __init__(self, step: int, folder: object, program: str = "clim-train") -> None:
        super().__init__(
            f"stopped while waiting for data after step {step}, no checkpoint was saved: "
            f"`{program} resume {folder}` continues from the last one"
        )


class WaitEnded(BaseException):
    """The end of a wait for data, because the run was asked to stop.

    Like KeyboardInterrupt it is not an Exception, so that no library handles it as an error.
    """


Handler = Callable[[int, FrameType | None], Any] | int | None
"""What `signal.signal` takes and returns."""


class StopRequest:
    """A context in which the first SIGTERM or SIGINT sets `asked`.

    A later one ends the process at once, as if it were not handled. In threads other than the main
    one nothing is handled.

    Args:
        same_s: seconds in which further signals count as the first. A launcher that gets a signal
            sends it on to processes that got it, too.
        wait_s: seconds after which a wait for data is given up, once asked; see `may_end_wait`.
    """

    _active: ClassVar["StopRequest | None"] = None

    def __init__(self, same_s: float = 2.0, wait_s: float = 10.0) -> None:
        self.asked = False
        self._same_s = same_s
        self._wait_s = wait_s
        self._waiting = False
        self._first_at = 0.0
        self._before: dict[int, Handler] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
            self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._end_wait)
            StopRequest._active = self
        return self

    def __exit__(self, *exception: object) -> None:
        if self._before:
            StopRequest._active = None
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @staticmethod
    def ask_active() -> bool:
        """Ask the training of this process to stop, from any thread; return whether there is one.

        Unlike a second signal, asking again changes nothing.
        """
        request = StopRequest._active
        if request is None:
            return False
        request._ask()
        return True

    @contextmanager
    def may_end_wait(self) -> Iterator[None]:
        """Raise WaitEnded in the context, which waits for data, when it takes too long.

        This holds only once the run is asked to stop: data may never come, because a worker process
        is dead or stuck.
        """
        self._waiting = True
        if self.asked:
            self._set_alarm(self._wait_s)
        try:
            yield
        finally:
            self._waiting = False
            if self.asked:
                self._set_alarm(0)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.asked:
            self._ask()
        elif time.monotonic() - self._first_at > self._same_s:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _ask(self) -> None:
        if self.asked:
            return
        self._first_at = time.monotonic()
        self.asked = True
        if self._waiting:
            self._set_alarm(self._wait_s)

    def _set_alarm(self, seconds: float) -> None:
        # The alarm raises in the main thread, in whichever call it waits.
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def _end_wait(self, number: int, frame: FrameType | None) -> None:
        if self._waiting:
            raise WaitEnded


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
        # After an error of this rank alone the others are at another place, and no collective can
        # end the group.
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
