"""The program `clim-train`, also as `python -m clim_train` and `deepspeed --module clim_train`."""

import sys
from collections.abc import Sequence

from clim_data.command_line import run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    return run_program("clim-train", "clim_train.commands.start", argv)


if __name__ == "__main__":
    sys.exit(main())
