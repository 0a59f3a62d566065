"""The program `clim-models`, also as `python -m clim_models`."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    from clim_models.commands.main import main as run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
