"""The commands of `clim-models`, and their exit statuses.

The other packages have `clim_data.command_line` for this, which this one may not import; a test
compares the exit statuses.
"""

import argparse
import sys
from collections.abc import Sequence

from clim_models.commands import export
from clim_models.version import __version__

FAILED = 1
MISTAKE = 2
INTERRUPTED = 130
PROGRAM = "clim-models"
WRONG_PATH = (PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 1 failed, 2 a mistake, 130 interrupted."""
    parser = build_parser()
    try:
        options = parser.parse_args(argv)
    except SystemExit as end:
        return int(end.code or 0)

    program = f"{PROGRAM} {options.command}"
    try:
        options.run(options)
    except WRONG_PATH as error:
        print(f"{program}: {error}: check that path and its permissions", file=sys.stderr)
        return MISTAKE
    except (ValueError, ImportError, FileNotFoundError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return MISTAKE
    except OSError as error:
        print(f"{program}: {error}: check that path and its disk", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"{program}: interrupted; the same command starts again", file=sys.stderr)
        return INTERRUPTED
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Region-trained CLIP models for other programs."
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    export.add(commands)
    return parser
