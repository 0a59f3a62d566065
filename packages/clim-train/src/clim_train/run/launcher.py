"""The end of the launcher that started this rank, which the rank notices itself.

The `deepspeed` command starts `deepspeed.launcher.launch`, which starts the ranks. SIGTERM ends
the command alone: on one machine it passes no signal on. A launcher that is killed leaves its ranks
behind, too. They would train on, watched by nobody, on devices that the scheduler has given away.
"""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from clim_train.run.stopping import StopRequest

POLL_S = 1.0
END_S = 30.0
"""Seconds in which a process ends after the signal; without a training that saves, it is ended."""

# The program of a launcher, or the module that Python runs.
_PROGRAMS = frozenset({"deepspeed", "torchrun"})
_MODULES = ("deepspeed.launcher.", "torch.distributed.")
_WORDS = 5  # `python -u -m deepspeed.launcher.launch ...`: the rest are options and arguments

_watching: threading.Thread | None = None


def watch_launcher() -> None:
    """Let the end of this process's launcher be a request to stop, as SIGTERM is.

    A training saves and stops, other work is terminated. Without a launcher nothing happens. Safe
    to call again.
    """
    global _watching
    if _watching is not None and _watching.is_alive():
        return
    line = launcher_line(os.getppid())
    if not line:
        return
    _watching = threading.Thread(
        target=_watch, args=(line,), daemon=True, name="clim-train-launcher"
    )
    _watching.start()


def launcher_line(process: int) -> list[int]:
    """Return the ids of a process and its ancestors, the nearest first, as far as all of them are
    launchers."""
    line: list[int] = []
    while process > 1 and _is_launcher(process):
        line.append(process)
        process = _parent(process)
    return line


def is_there(line: list[int]) -> bool:
    """Return whether each process of the line is still the parent of the one before, and the first
    the parent of this process."""
    parents = [os.getppid(), *map(_parent, line[:-1])]
    return parents == line


def _watch(line: list[int]) -> None:
    while is_there(line):
        time.sleep(POLL_S)

    with suppress(OSError):
        print("the launcher has ended: this rank stops, too", file=sys.stderr, flush=True)
    if StopRequest.ask_active():
        return
    os.kill(os.getpid(), signal.SIGTERM)

    # A rank that waits for another one in a library does not get to the signal.
    time.sleep(END_S)
    if not StopRequest.ask_active():
        os._exit(128 + signal.SIGTERM)


def _is_launcher(process: int) -> bool:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # it has ended, or this system has no /proc
        return False
    return any(
        os.path.basename(word) in _PROGRAMS or word.startswith(_MODULES) for word in words[:_WORDS]
    )


def _parent(process: int) -> int:
    """Return the id of a process's parent, 0 where the process is gone."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:
        return 0
    # The name, in brackets, may hold anything.
    return int(fields.rpartition(")")[2].split()[1])
