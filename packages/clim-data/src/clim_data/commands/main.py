"""`clim-data pack | doctor | proposals | nouns | tags | ov-split | voc`."""

import sys
from collections.abc import Sequence

from clim_data.command_line.checks import without_launcher_options
from clim_data.command_line.exit_status import run_command
from clim_data.command_line.parser import CommandParser, add_commands
from clim_data.processes.launcher import watch_launcher
from clim_data.version import __version__

# Command -> its module, imported on use, and what it does, in the order of the help. A module has
# `add(commands)` and `run(options)`.
COMMANDS: dict[str, tuple[str, str]] = {
    "pack": ("clim_data.commands.pack", "write webdataset shards"),
    "doctor": ("clim_data.commands.doctor", "say which data sets are whole, broken or missing"),
    "proposals": (
        "clim_data.commands.proposals",
        "find class-agnostic boxes in images, as a COCO json",
    ),
    "nouns": ("clim_data.commands.nouns", "list the nouns of captions, one per line"),
    "tags": (
        "clim_data.commands.tags",
        "write captions and the classes that they name, for Detic + CLIM",
    ),
    "ov-split": (
        "clim_data.commands.ov_split",
        "write the training and validation jsons of OV-COCO (48/17) and OV-LVIS (866/337)",
    ),
    "voc": (
        "clim_data.commands.voc",
        "write the XML annotations of Pascal VOC as a COCO json",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status, see `run_command`.

    `doctor` returns 1 also when a data set that it needs is incomplete.
    """
    words = without_launcher_options(sys.argv[1:] if argv is None else argv)
    options = build_parser(words).parse_args(words)
    watch_launcher()
    continues = "the same command continues" if options.continues else "run it again"
    return run_command("clim-data", options.run, options, continues=continues)


def build_parser(words: Sequence[str] = ()) -> CommandParser:
    """Return the parser of all commands, with the options of the one that `words` begin with."""
    parser = CommandParser(
        prog="clim-data",
        description="Prepare and check data for region training of CLIP.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(continues=False)
    add_commands(parser, COMMANDS, words)
    return parser
