"""`clim-data pack | doctor | proposals | nouns | tags | ov-split`."""

import sys
from collections.abc import Sequence

from clim_data.command_line.checks import without_launcher_options
from clim_data.command_line.exit_status import run_command
from clim_data.command_line.parser import CommandParser
from clim_data.commands import doctor, nouns, ov_split, pack, proposals, tags
from clim_data.processes.launcher import watch_launcher
from clim_data.version import __version__

# In the order of the help. A command's module has `add(commands)` and `run(options)`.
COMMANDS = (pack, doctor, proposals, nouns, tags, ov_split)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status, see `run_command`.

    `doctor` returns 1 also when a data set that it needs is incomplete.
    """
    words = without_launcher_options(sys.argv[1:] if argv is None else argv)
    options = build_parser().parse_args(words)
    watch_launcher()
    continues = "the same command continues" if options.continues else "run it again"
    return run_command("clim-data", options.run, options, continues=continues)


def build_parser() -> CommandParser:
    """Return the parser of all commands."""
    parser = CommandParser(
        prog="clim-data",
        description="Prepare and check data for region training of CLIP.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(continues=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for module in COMMANDS:
        module.add(commands)
    return parser
