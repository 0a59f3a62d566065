"""The command `flmm`, also `python -m flmm` and `deepspeed --module flmm`: one module for each
command."""

import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module

from clim_data.command_line import without_launcher_options

# Command -> its module, imported on use, and what it does. A module has `main(arguments)`, which
# raises ValueError or FileNotFoundError for mistakes of the user.
COMMANDS: dict[str, tuple[str, str]] = {
    "ground": ("commands.ground", "masks of phrases in an image, drawn, and as COCO RLE json"),
    "chat": (
        "commands.chat",
        "ask about an image in the terminal; answers are drawn with the masks of their phrases",
    ),
    "demo": ("web.command", "a web page: ask, ground phrases, look again (extra flmm[demo])"),
    "eval": (
        "commands.evaluate",
        "masks of a data set against the true ones: eval png, refcoco or viscot",
    ),
    "demo-model": (
        "commands.demo_model",
        "write the demo LMM, which needs no download, as a Hugging Face folder",
    ),
    "train": (
        "commands.train",
        "train the heads as a recipe says; train list, show, resume, convert, export",
    ),
}


def usage() -> str:
    """The commands, one a line."""
    lines = [f"  {name:<12}{about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(["usage: flmm COMMAND ...   (flmm COMMAND --help)", "", *lines])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    0: it succeeded. 1: it failed on the way (another rank, a full disk, a loss that is not finite).
    2: a mistake in the command, the configuration or the data. 75: a training was asked to stop,
    saved, and can be resumed. 130: interrupted. All but 0 are explained on stderr; errors that
    nobody foresaw are raised.
    """
    arguments = without_launcher_options(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    from clim_train.commands import exit_status

    return exit_status(
        partial(_command, arguments[0], arguments[1:]),
        program="flmm",
        resume="flmm train resume RUN",
    )


def _command(command: str, rest: Sequence[str]) -> None:
    if command not in COMMANDS:
        raise ValueError(f"there is no command {command!r}: use one of {', '.join(COMMANDS)}")
    import_module(f"flmm.{COMMANDS[command][0]}").main(rest)
