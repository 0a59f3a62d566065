"""One writer at a time in a run folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from clim_train.run.lock import LOCK_FILE, FolderInUseError, hold, only_writer, release
from two_processes import run_ranks

WRITER = """
import sys, time
from clim_train.run.lock import hold
hold(sys.argv[1])
print("holds", flush=True)
time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """Another process that holds the lock of `tmp_path`/run."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "holds\n"
        yield process
        process.kill()


def test_second_writer_is_refused_until_the_first_is_gone(writer, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(FolderInUseError, match=f"another process .id {writer.pid} on .* is wri"):
        hold(run)
    writer.kill()
    writer.wait()
    with only_writer(run):
        assert (run / LOCK_FILE).read_text().startswith(f"id {os.getpid()} on ")


def test_one_process_can_hold_it_several_times(tmp_path):
    run = tmp_path / "run"
    hold(run)
    with only_writer(run):
        (run / "file").touch()
    assert not child_can_hold(run)
    release(run)
    assert child_can_hold(run)


def test_workers_do_not_inherit_it(tmp_path):
    """A worker that outlives its process must not keep the folder."""
    (tmp_path / "file").touch()
    hold(tmp_path)
    reader, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    release(tmp_path)
    assert child_can_hold(tmp_path)
    os.close(writing)
    os.waitpid(pid, 0)


def test_a_folder_that_was_made_for_the_lock_is_removed(tmp_path):
    with only_writer(tmp_path / "a" / "run"):
        assert (tmp_path / "a" / "run" / LOCK_FILE).exists()
    assert not (tmp_path / "a" / "run").exists()


@pytest.mark.parametrize("plant", ["link", "pipe"])
def test_what_was_planted_as_lock_is_neither_written_nor_waited_for(tmp_path, plant):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "run").mkdir()
    if plant == "link":
        (tmp_path / "run" / LOCK_FILE).symlink_to(precious)
    else:
        os.mkfifo(tmp_path / "run" / LOCK_FILE)
    with pytest.raises((OSError, ValueError)):
        hold(tmp_path / "run")
    assert precious.read_text() == "mine"


def child_can_hold(folder):
    script = Path(__file__).parents[2] / "workers" / "lock_holder.py"
    (status,) = run_ranks(script, [str(folder)], folder / "holder")
    assert status in (0, 1), (folder / "holder.0.log").read_text()
    return status == 0
