"""The start of a program, before anything that takes time is imported."""

import sys
from collections.abc import Sequence
from importlib import import_module

from clim_data.command_line.exit_status import FAILED, discard_output, run_command
from clim_data.command_line.interrupts import handled_signals, imports_are_done
from clim_data.command_line.threads import limit_threads


def run_program(program: str, module: str, argv: Sequence[str] | None = None) -> int:
    """Import a module and return the exit status of its `main(argv)`; see `run_command`.

    Console scripts and `python -m` call it, so that Ctrl-C, SIGTERM and a pipe without a reader
    give one line or silence from the very start: while libraries are imported, while options are
    parsed and help is printed. Threads are limited before the libraries start them (see
    `limit_threads`).

    Args:
        program: name of the console script, for messages.
        module: module to import, which has `main(argv) -> int`.
        argv: words of the command line; by default those of this process.
    """
    limit_threads()
    with handled_signals(program, restore=argv is not None):
        try:
            return run_command(program, _import_and_run, module, argv)
        finally:
            _flush_output()


def _import_and_run(module: str, argv: Sequence[str] | None) -> int:
    main = import_module(module).main
    imports_are_done()
    try:
        return main(argv)
    except SystemExit as end:
        # argparse and tyro end the process after `--help` and after a mistake.
        if type(end) is not SystemExit:
            raise
        if sys.stdout is not None:
            sys.stdout.flush()
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return FAILED
        return int(end.code or 0)


def _flush_output() -> None:
    """Flush the streams, or discard text without a reader, before Python does it and complains."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:  # the shell has closed it
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            discard_output(stream)
