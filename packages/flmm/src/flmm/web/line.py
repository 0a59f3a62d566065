"""The queue of jobs of the one model: they run one after the other, and jobs of visitors who left
are removed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any

from starlette.requests import ClientDisconnect, Request

MOST_WAITING = 64
LOOK_S = 0.5  # between looks whether a visitor is still there, and at the place in the line

Send = Callable[[Any], None]


class Refused(Exception):
    """A refused request, with its message. status: of HTTP."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Line:
    """One thread that does jobs in their order, next to the server's own work."""

    def __init__(self, name: str):
        self._worker = ThreadPoolExecutor(1, f"flmm-{name}")
        self._jobs: list[Future[Any]] = []  # that wait or run, in their order

    async def run(self, job: Callable[[], Any], request: Request) -> Any:
        """Do a job and return its result.

        Raises:
            Refused: too many wait.
            ClientDisconnect: the visitor left, and the job was taken out or its result dropped.
        """
        entered = self._enter(job)
        future = asyncio.wrap_future(entered)
        try:
            while not future.done():
                await asyncio.wait({future}, timeout=LOOK_S)
                if not future.done() and await request.is_disconnected():
                    raise ClientDisconnect
            return future.result()
        finally:
            self._leave(entered, future)

    async def stream(self, job: Callable[[Send], Any]) -> AsyncIterator[tuple[str, Any]]:
        """Do a job that sends pieces of its result.

        Yields ("ahead", jobs before this one) whenever that changes, ("piece", what was sent),
        and at last ("done", what the job returned).

        Raises:
            Refused: too many wait; before anything is yielded.
            The errors of the job.
        """
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[Any] = asyncio.Queue()
        left = Event()

        def send(piece: Any) -> None:
            if left.is_set():
                raise ClientDisconnect
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        entered = self._enter(job, send)
        future = asyncio.wrap_future(entered)
        waiting: asyncio.Future[Any] = loop.create_future()
        try:
            ahead = None
            while not (future.done() and pieces.empty()):
                if ahead != 0 and (place := self._ahead_of(entered)) != ahead:
                    ahead = place
                    yield "ahead", ahead
                waiting = asyncio.ensure_future(pieces.get())
                await asyncio.wait(
                    {waiting, future}, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED
                )
                if waiting.done():
                    yield "piece", waiting.result()
                else:
                    waiting.cancel()
                    await asyncio.sleep(0)  # pieces that the thread has just sent
            yield "done", future.result()
        finally:  # also when the visitor left
            left.set()
            waiting.cancel()
            self._leave(entered, future)

    def close(self) -> None:
        """End the thread after its job; those that wait are dropped."""
        self._worker.shutdown(cancel_futures=True)

    def _enter(self, job: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Put a job at the end of the line."""
        self._forget_done()
        if len(self._jobs) >= MOST_WAITING:
            waiting = len(self._jobs)
            raise Refused(503, f"{waiting} requests are waiting already: try again in a while")
        entered = self._worker.submit(job, *arguments)
        self._jobs.append(entered)
        return entered

    def _leave(self, entered: "Future[Any]", future: "asyncio.Future[Any]") -> None:
        """Take a job out of the line. One that runs stays in it until it has ended."""
        entered.cancel()
        future.cancel()
        self._forget_done()

    def _ahead_of(self, entered: "Future[Any]") -> int:
        """Count the jobs that must end before this one begins."""
        if entered.done():
            return 0
        return sum(not job.done() for job in self._jobs[: self._jobs.index(entered)])

    def _forget_done(self) -> None:
        self._jobs[:] = [job for job in self._jobs if not job.done()]
