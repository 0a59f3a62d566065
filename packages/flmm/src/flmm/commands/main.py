"""`flmm ground | attention | chat | demo | eval | demo-model | train`, a module for each."""

import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module

from clim_data.command_line import CommandParser, add_commands, without_launcher_options
from clim_data.processes import watch_launcher

from flmm.version import __version__

# Command -> its module, imported on use, and what it does. A module has `add(commands)` and
# `run(options)`; `train`, whose options are those of its recipe, has `main(arguments)`.
COMMANDS: dict[str, tuple[str, str]] = {
    "ground": ("flmm.commands.ground", "draw the masks of phrases in an image or a folder"),
    "attention": (
        "flmm.commands.attention",
        "draw where an LMM looks while it reads phrases; without heads and SAM",
    ),
    "chat": (
        "flmm.commands.chat",
        "talk about an image; each answer is drawn with the masks of its phrases",
    ),
    "demo": (
        "flmm.web.command",
        "open a web page: ask about a picture, ground phrases in it, let the model look again",
    ),
    "eval": (
        "flmm.commands.evaluate",
        "score a grounded LMM on a data set, or answer the questions of a benchmark",
    ),
    "demo-model": (
        "flmm.commands.demo_model",
        "write the demo LMM, which needs no download, as a Hugging Face folder",
    ),
    "train": (
        "flmm.commands.train",
        "train the heads as a recipe says; train list, show, estimate, resume, convert, export",
    ),
}

CONTINUES = {
    "train": "`flmm train resume RUN` continues a run that has saved a checkpoint",
    "eval": "the same command continues",
}
AGAIN = "run it again"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status, see `exit_status` of clim-train."""
    words = without_launcher_options(sys.argv[1:] if argv is None else argv)
    watch_launcher()
    name = words[0] if words else ""
    # It is part of `train`, but no run that could be resumed.
    is_presence = words[:2] == ["train", "presence"]
    if name == "train":
        command = partial(import_module("flmm.commands.train").main, words[1:])
    else:
        options = build_parser(name).parse_args(words)
        command = partial(options.run, options)

    # Imported here: it takes a second, which `--help` need not wait for.
    from clim_train.commands import exit_status

    return exit_status(
        command,
        program=f"flmm {name}" if name != "train" else "flmm",
        continues=AGAIN if is_presence else CONTINUES.get(name, AGAIN),
    )


def build_parser(name: str = "") -> CommandParser:
    """Return the parser of all commands, with the options of the command `name` only.

    The modules of the other commands are not imported.
    """
    parser = CommandParser(
        prog="flmm", description="Let frozen multimodal LLMs point at what they say."
    )
    parser.add_argument("--version", action="version", version=f"flmm {__version__}")
    add_commands(parser, COMMANDS, [name] if name != "train" else [])
    return parser
