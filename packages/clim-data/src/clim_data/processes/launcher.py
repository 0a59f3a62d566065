"""Ranks that notice the end of their launcher.

The `deepspeed` command starts `deepspeed.launcher.launch`, which starts the ranks. SIGTERM ends
the command alone: on one machine it passes no signal on. A launcher that is killed leaves its ranks
behind, too. They would go on, unnoticed, on devices that the scheduler has given to another job.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

POLL_S = 1.0
END_S = 30.0
"""Seconds that a process has to end after the signal; then it is killed, unless it is finishing its
work."""

# The program of a launcher, or the module that Python runs.
_PROGRAMS = frozenset({"deepspeed", "torchrun"})
_MODULES = ("deepspeed.launcher.", "torch.distributed.")
_WORDS = 5  # `python -u -m deepspeed.launcher.launch ...`: the rest are options and arguments

_watching: threading.Thread | None = None
_finishers: list[Callable[[], bool]] = []


def watch_launcher(ask_to_finish: Callable[[], bool] | None = None) -> None:
    """Treat the end of this process's launcher as a request to stop, like SIGTERM.

    Without a launcher nothing happens. Safe to call again.

    Args:
        ask_to_finish: asks the work of this process to come to an end of its own, as a training
            that saves does, and returns whether there is such work. Other work is terminated.
    """
    global _watching
    if ask_to_finish is not None and ask_to_finish not in _finishers:
        _finishers.append(ask_to_finish)
    if _watching is not None and _watching.is_alive():
        return
    line = launcher_line(os.getppid())
    if not line:
        return
    _watching = threading.Thread(
        target=_watch, args=(line,), daemon=True, name="clim-data-launcher"
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
    if _finishes():
        return
    os.kill(os.getpid(), signal.SIGTERM)

    # A rank that waits for another one inside a library cannot handle the signal.
    time.sleep(END_S)
    if not _finishes():
        os._exit(128 + signal.SIGTERM)


def _finishes() -> bool:
    """Ask the work of this process to finish; return whether any of it will."""
    finishes = [ask() for ask in _finishers]  # each is asked
    return any(finishes)


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
