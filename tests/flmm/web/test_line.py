import asyncio
import contextlib
import threading

import pytest

pytest.importorskip("starlette")

from flmm.web.line import Line


@pytest.fixture
def line():
    line = Line("test")
    yield line
    line.close()


async def places(line: Line, job) -> list[int]:
    """Do a job, and list how many were before it."""
    return [value async for kind, value in line.stream(job) if kind == "ahead"]


async def cancelled(task: asyncio.Task) -> None:
    """Let a visitor leave."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def begun(event: threading.Event) -> None:
    while not event.is_set():
        await asyncio.sleep(0.01)


def test_a_job_that_runs_is_counted_until_it_ends(line):
    running, go = threading.Event(), threading.Event()

    def slow(send):
        running.set()
        go.wait(20)

    async def visits():
        first = asyncio.create_task(places(line, slow))
        await begun(running)
        await cancelled(first)
        second = asyncio.create_task(places(line, lambda send: None))
        await asyncio.sleep(0.05)
        go.set()
        return await second

    try:
        assert asyncio.run(visits())[0] == 1
    finally:
        go.set()


def test_a_visitor_who_leaves_leaves_no_task_behind(line):
    running, go = threading.Event(), threading.Event()

    def slow(send):
        running.set()
        go.wait(20)

    async def visit():
        task = asyncio.create_task(places(line, slow))
        await begun(running)
        await cancelled(task)
        go.set()
        await asyncio.sleep(0.05)
        return asyncio.all_tasks() - {asyncio.current_task()}

    try:
        assert asyncio.run(visit()) == set()
    finally:
        go.set()
