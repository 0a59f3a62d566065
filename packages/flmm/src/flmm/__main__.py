"""The program `flmm`, also as `python -m flmm` and `deepspeed --module flmm`."""

import sys
from collections.abc import Sequence

from clim_data.command_line import run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    return run_program("flmm", "flmm.commands.main", argv)


if __name__ == "__main__":
    sys.exit(main())
