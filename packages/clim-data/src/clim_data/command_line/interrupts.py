"""The reaction of a program to Ctrl-C, SIGTERM and a closed terminal.

By default Python prints a traceback for the first, and dies without cleaning up for the others.
Here each raises in the main thread, so that drafts of files are removed, and `run_command` prints
one line. A training replaces these handlers while it can save and stop.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Terminated(SystemExit):
    """SIGTERM or SIGHUP arrived; `status` is the exit status that shells give it.

    As a SystemExit it ends a process quietly wherever nobody catches it.
    """

    def __init__(self, number: int) -> None:
        self.status = 128 + number
        super().__init__(self.status)


class _Signals:
    """Handlers of one process: the first signal raises, a second one ends the process at once."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.importing = True
        self.received: int | None = None
        self._owner = os.getpid()

    def install(self) -> None:
        """Handle the signals, except those that the parent has ignored (`nohup`, `&`)."""
        for number in _NUMBERS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # A worker that was forked from this process prints nothing: its parent does.
        if os.getpid() != self._owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return

        # While libraries are imported nothing needs to be cleaned up, and an exception in the
        # middle of them may be swallowed or printed by the library.
        if self.importing or self.received is not None:
            if self.importing:
                word = "interrupted" if number == signal.SIGINT else "terminated"
                with contextlib.suppress(OSError):
                    os.write(2, f"{self.program}: {word}\n".encode())
            os._exit(128 + number)

        self.received = number
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated(number)


_installed: _Signals | None = None


@contextlib.contextmanager
def handled_signals(program: str, *, restore: bool) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP end this program in one line; only in the main thread.

    `restore` sets the earlier handlers again, for a process that goes on afterwards.
    """
    global _installed
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    before = {number: signal.getsignal(number) for number in _NUMBERS}
    _installed = _Signals(program)
    _installed.install()
    try:
        yield
    finally:
        if restore:
            _installed = None
            for number, handler in before.items():
                signal.signal(number, handler)


def imports_are_done() -> None:
    """Let the signals raise from now on: the program has something to clean up."""
    if _installed is not None:
        _installed.importing = False


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Mark a block that imports the libraries of a command: a signal ends the process in it, as
    while the program starts."""
    if _installed is None:
        yield
        return

    _installed.importing = True
    try:
        yield
    finally:
        _installed.importing = False


def was_interrupted() -> bool:
    """Return whether Ctrl-C arrived, also where a library turned it into another error."""
    return _installed is not None and _installed.received == signal.SIGINT
