"""Workers that fail end the iteration with an error; the main process never waits for them."""

import os
import resource
import signal
import threading
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from clim_data.command_line import FAILED, run_command
from clim_data.processes import workers
from clim_data.processes.workers import SharedMemoryError, WorkerError, load_in_workers
from torch.utils.data import Dataset


class Squares(Dataset):
    """Items of tensors, arrays and plain values; `fault` happens at item 2."""

    def __init__(self, fault=None, size=4):
        self.fault, self.size = fault, size

    def __len__(self):
        return 6

    def __getitem__(self, number):
        if self.fault is not None and number == 2:
            self.fault()
        return {"tensor": torch.full((self.size,), number**2), "name": f"item {number}"}


def limit_shared_memory():
    """Let no file of this process be larger than 1 kB, shared memory included."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def leave_open_files(spare):
    """Use up the files that this process may open, but for a number of them."""
    number = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (number + 1, number + 1))
    opened = []
    while True:
        try:
            opened.append(os.dup(0))
        except OSError:
            break
    for one in opened[:spare]:
        os.close(one)


def be_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def load(data, workers=1):
    return list(load_in_workers(data, range(6), workers=workers))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_items_come_whole_and_in_order(workers):
    items = load(Squares(), workers)
    assert [item["name"] for item in items] == [f"item {number}" for number in range(6)]
    assert [item["tensor"].tolist() for item in items] == [[n**2] * 4 for n in range(6)]


@pytest.mark.parametrize("workers", [0, 2])
def test_collate_gets_lists_of_items(workers):
    lists = load_in_workers(Squares(), range(5), workers=workers, batch_size=2, collate=list)
    names = [[item["name"] for item in items] for items in lists]
    assert names == [["item 0", "item 1"], ["item 2", "item 3"], ["item 4"]]


def test_full_shared_memory_is_an_error_with_the_fix(capsys):
    data = Squares(limit_shared_memory, size=1000)
    with pytest.raises(SharedMemoryError, match=r"(?s)/dev/shm \(.* MB are free\).*--shm-size"):
        load(data)
    assert run_command("clim-train", load, data) == FAILED
    line = capsys.readouterr().err
    assert "no room in shared memory" in line
    assert "--data.workers 0" in line
    assert line.count("\n") == 1


def test_full_shared_memory_is_noticed_before_workers_start(monkeypatch):
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda path: SimpleNamespace(free=9, total=9))
    with pytest.raises(SharedMemoryError, match="cannot be started"):
        load_in_workers(Squares(), range(6), workers=1)
    assert len(load(Squares(), workers=0)) == 6


@pytest.mark.parametrize("spare", [0, 1])
def test_exhausted_open_files_are_an_error_in_one_line(spare, capsys):
    data = Squares(partial(leave_open_files, spare))
    assert run_command("clim-train", load, data) == FAILED
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "open files" in line  # of the worker that packs, or of its thread that hands over
    assert "lower --workers" in line


def test_items_that_cannot_be_sent_are_an_error():
    lists = load_in_workers(Squares(), range(2), workers=1, collate=lambda item: threading.Lock())
    with pytest.raises(WorkerError, match="cannot pickle"):
        list(lists)


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_killed_worker_is_an_error_in_one_line(capfd, in_thread):
    statuses = []

    def run():
        statuses.append(run_command("clim-train", load, Squares(be_killed)))

    if in_thread:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(30)
    else:
        run()
    assert statuses == [FAILED]
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    assert "out of memory" in line
    assert "--workers" in line


def test_ctrl_c_ends_the_wait():
    class Slow(Squares):
        def __getitem__(self, number):
            time.sleep(2)

    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        load(Slow())


def test_arrays_arrive_as_with_torch():
    class Arrays(Squares):
        def __getitem__(self, number):
            return np.arange(number)

    plain, sent = load(Arrays(), 0), load(Arrays(), 1)
    assert all(torch.equal(a, b) for a, b in zip(plain, sent, strict=True))


def test_more_workers_than_cpus_are_no_warning(monkeypatch):
    """pytest makes errors of warnings."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    assert len(list(load_in_workers(Squares(), range(3), workers=2))) == 3
