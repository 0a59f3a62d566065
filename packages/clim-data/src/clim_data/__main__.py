"""The program `clim-data`, also as `python -m clim_data` and `deepspeed --module clim_data`."""

import sys
from collections.abc import Sequence

from clim_data.command_line.program import run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    return run_program("clim-data", "clim_data.commands.main", argv)


if __name__ == "__main__":
    sys.exit(main())
