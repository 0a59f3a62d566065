"""Workers outlive what is sent to the whole group of processes, and end when their parent says
so."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from clim_data.processes.worker_signals import leave_signals_to_parent, sigterm_held_back
from torch.utils.data import DataLoader


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return os.getpid(), index


def start(workers):
    options = {"batch_size": None, "num_workers": workers, "prefetch_factor": 1}
    with sigterm_held_back():
        return iter(DataLoader(Numbers(), **options, worker_init_fn=leave_signals_to_parent))


def workers_of(batches):
    return [worker.pid for worker in batches._workers]


def test_workers_outlive_signals_from_elsewhere():
    batches = start(2)
    assert {next(batches)[0], next(batches)[0]} == set(workers_of(batches))  # both are at work
    signaller = os.fork()  # a process that is not their parent
    if signaller == 0:
        for pid in workers_of(batches):
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                os.kill(pid, number)
        os._exit(0)
    os.waitpid(signaller, 0)
    rest = [index for _, index in batches]
    assert rest == list(range(2, 8))


@pytest.mark.parametrize("way", ["terminate", "end of the iterator"])
def test_parent_ends_them(way):
    batches = start(1)
    next(batches)
    worker = batches._workers[0]
    if way == "terminate":
        worker.terminate()
    began = time.monotonic()
    batches._shutdown_workers()
    worker.join(5)
    assert worker.exitcode == 0
    assert time.monotonic() - began < 4


# Not this module: it imports torch, which the processes of the test need not wait for.
OF_A_SERVER = """
import multiprocessing, pathlib, sys, time
from clim_data.processes.worker_signals import end_with_starter

def wait_for_ever(ready):
    end_with_starter()
    ready.touch()
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    worker = context.Process(target=wait_for_ever, args=(pathlib.Path(sys.argv[1]),))
    worker.start()
    print(worker.pid, flush=True)
    worker.join()
"""


def test_workers_of_a_server_end_with_the_process_that_asked_for_them(tmp_path):
    """A killed process ends nothing itself."""
    script, ready = tmp_path / "program.py", tmp_path / "ready"
    script.write_text(OF_A_SERVER)
    program = subprocess.Popen(
        [sys.executable, str(script), str(ready)], stdout=subprocess.PIPE, text=True
    )
    worker = Path("/proc", program.stdout.readline().strip())
    deadline = time.monotonic() + 60
    while not ready.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)

    program.kill()
    program.communicate()
    while worker.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
