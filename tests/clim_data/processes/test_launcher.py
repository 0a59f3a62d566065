"""Ranks whose launcher has ended do not go on alone."""

import os
import signal
import subprocess
import sys

from clim_data.processes.launcher import is_there, launcher_line

RANK = """
import signal, sys, time
from clim_data.processes import launcher
launcher.POLL_S = 0.05
launcher.END_S = {end_s}

def terminated(*_):
    print("terminated", flush=True)
    sys.exit(143)

signal.signal(signal.SIGTERM, {handler})
launcher.watch_launcher()
launcher.watch_launcher()
{body}
"""
WAIT = """
print("waiting", flush=True)
time.sleep(60)
"""
FINISH = """
asked = []
launcher.watch_launcher(lambda: asked.append(1) is None)
print("waiting", flush=True)
while not asked:
    time.sleep(0.01)
time.sleep(0.3)  # a rank that notices twice is not ended
print("saved", flush=True)
"""


def launch(tmp_path, body, *, handler="terminated", end_s=60):
    """Start `deepspeed` -> `deepspeed.launcher.launch` -> a rank, and wait for the rank."""
    rank = RANK.format(body=body, handler=handler, end_s=end_s)
    (tmp_path / "rank.py").write_text(rank)
    starts = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, *{}]).returncode)"
    middle = starts.format(f"[{str(tmp_path / 'rank.py')!r}]")
    first = starts.format(f"['-c', {middle!r}, 'deepspeed.launcher.launch']")
    launcher = subprocess.Popen(
        [sys.executable, "-c", first, "deepspeed"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert launcher.stdout.readline() == "waiting\n"
    return launcher


def said_after_its_end(launcher):
    """End the first process alone, and return what the rank says until all have ended."""
    launcher.send_signal(signal.SIGTERM)
    said, errors = launcher.communicate(timeout=30)
    assert launcher.returncode == -signal.SIGTERM
    assert errors == "the launcher has ended: this rank stops, too\n"
    return said


def test_work_is_asked_to_finish_when_the_command_that_started_its_launcher_ends(tmp_path):
    assert said_after_its_end(launch(tmp_path, FINISH)) == "saved\n"


def test_other_work_is_terminated(tmp_path):
    assert said_after_its_end(launch(tmp_path, WAIT)) == "terminated\n"


def test_a_rank_that_does_not_get_to_the_signal_is_ended(tmp_path):
    assert said_after_its_end(launch(tmp_path, WAIT, handler="signal.SIG_IGN", end_s=0.1)) == ""


def test_without_a_launcher_nothing_is_watched():
    assert launcher_line(os.getpid()) == []
    assert launcher_line(1) == []


def test_a_line_ends_at_the_first_process_that_is_no_launcher():
    words = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)", "torchrun"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as launcher:
        launcher.stdout.readline()  # the words of a process are there a moment after it starts
        assert launcher_line(launcher.pid) == [launcher.pid]
        assert not is_there([launcher.pid])  # this process has another parent
        launcher.kill()
