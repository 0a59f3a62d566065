"""The end of every command: one table from events to exit statuses, and one line on stderr."""

import contextlib
import os
import select
import sys
from collections.abc import Callable, Mapping
from typing import TextIO

from clim_data.command_line.failures import (
    WRONG_PATH,
    explain_failure,
    first_line,
    full_disk,
    message_of,
)
from clim_data.command_line.interrupts import Terminated, was_interrupted

SUCCEEDED = 0
FAILED = 1
MISTAKE = 2
INTERRUPTED = 130
READER_LEFT = 141
TERMINATED = 143


def run_command(
    program: str,
    command: Callable[..., int | None],
    *arguments: object,
    continues: str = "the same command continues",
    statuses: Mapping[type[BaseException], int] | None = None,
) -> int:
    """Run `command(*arguments)` and return the exit status of the program.

    | status | event |
    |---|---|
    | 0 | it succeeded (or what the command returns) |
    | 1 | it failed on the way: full disk, no memory, no GPU, no network, a worker was killed |
    | 2 | a mistake of the user, a folder that is in use, a package that is not installed |
    | 129 | the terminal was closed (SIGHUP) |
    | 130 | interrupted with Ctrl-C |
    | 141 | the reader of the output has ended (`| head`); nothing is printed |
    | 143 | terminated with SIGTERM |

    Each of them but 0 and 141 is explained in one line on stderr, which ends with the fix. An
    unforeseen error is raised, because a bug report needs its traceback.

    Args:
        program: what the line begins with, for example "clim-eval regions".
        continues: names the command that continues the work after a full disk or Ctrl-C.
        statuses: the program's own errors, whose messages are complete, and their statuses.
    """
    try:
        status = command(*arguments) or SUCCEEDED
        if sys.stdout is not None:  # None: the shell has closed it (`>&-`)
            sys.stdout.flush()
        return status
    except (KeyboardInterrupt, Terminated) as signal:
        return _end_by_signal(program, signal, continues)
    except Exception as error:
        # Code between here and the signal may have turned Ctrl-C into an error of its own.
        if was_interrupted():
            return _end_by_signal(program, KeyboardInterrupt(), continues)
        if _reader_left(error):
            discard_output(sys.stdout)
            return READER_LEFT

        explained = _explain(error, continues, statuses or {})
        if explained is None:
            raise
        status, line = explained
        say(program, line)
        return status


def say(program: str, line: str) -> None:
    """Print one line on stderr, unless nobody reads it."""
    with contextlib.suppress(OSError, ValueError):
        print(f"{program}: {' '.join(line.split())}", file=sys.stderr, flush=True)


def discard_output(stream: TextIO) -> None:
    """Discard the unwritten text of a stream without a reader, so that Python ends without a
    message."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _end_by_signal(program: str, signal: BaseException, continues: str) -> int:
    if isinstance(signal, Terminated):
        say(program, f"terminated; {continues}")
        return signal.status
    say(program, f"interrupted; {continues}")
    return INTERRUPTED


def _reader_left(error: Exception) -> bool:
    """Return whether the error means that the reader of stdout has ended.

    Pipes to worker processes break, too: only stdout itself knows.
    """
    if not isinstance(error, BrokenPipeError) or sys.stdout is None:
        return False
    try:
        sys.stdout.flush()
        stream = select.poll()
        stream.register(sys.stdout.fileno(), 0)
    except BrokenPipeError:
        return True
    except (OSError, ValueError):  # stdout is no file
        return False
    # Without a buffer nothing is left to flush, but the system knows that the pipe has no reader.
    return any(event & select.POLLERR for _, event in stream.poll(0))


def _explain(
    error: Exception, continues: str, statuses: Mapping[type[BaseException], int]
) -> tuple[int, str] | None:
    """Return status and line for an error of the exit table, None for any other error."""
    for kind, status in statuses.items():
        if isinstance(error, kind):
            return status, str(error)

    # Only a system's error has a number that tells a path from a connection.
    number = error.errno if isinstance(error, OSError) else None
    if full_disk(error):
        return FAILED, f"{first_line(error)}: make room, then {continues}"

    if isinstance(error, BrokenPipeError):  # a ConnectionError, but no fault of the network
        return FAILED, f"{error}: a process at the other end has ended; {continues}"

    # Our own messages, which end with the fix, may quote a library: only the error's class counts.
    ours = isinstance(error, ValueError | ImportError | FileNotFoundError) and not (
        number is not None or getattr(error, "path", None)  # of the system, of Python's importer
    )
    failure = explain_failure(error, by_class_only=ours)
    if failure is not None:
        return FAILED, failure

    if ours or isinstance(error, ImportError):
        return MISTAKE, message_of(error)
    if not isinstance(error, OSError):
        return None
    if number in WRONG_PATH:
        return MISTAKE, f"{error}: check that path and its permissions, or name another"
    if number is None:  # libraries raise it for a file or folder that they cannot use
        return MISTAKE, message_of(error)
    return FAILED, f"{error}: check that path and its disk, then {continues}"
