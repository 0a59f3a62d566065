"""The program `clim-eval`, also as `python -m clim_eval` and `deepspeed --module clim_eval`."""

import sys
from collections.abc import Sequence

from clim_data.command_line import run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    return run_program("clim-eval", "clim_eval.commands.main", argv)


if __name__ == "__main__":
    sys.exit(main())
