"""The command `flmm`, also `python -m flmm` and `deepspeed --module flmm`: one module for each command."""

import sys
from collections.abc import Sequence
from importlib import import_module

# Command -> its module, imported on use, and what it does. A module has `main(arguments)`, which raises ValueError or
# FileNotFoundError for mistakes of the user.
COMMANDS: dict[str, tuple[str, str]] = {
    "ground": ("ground_command", "masks of phrases in an image, drawn, and as COCO RLE json"),
    "chat": ("chat_command", "ask about an image in the terminal; answers are drawn with the masks of their phrases"),
    "eval": ("eval_command", "masks of a data set against the true ones: eval png, refcoco or viscot"),
    "demo-model": ("demo.command", "write the demo LMM, which needs no download, as a Hugging Face folder"),
    "train": ("train_command", "train the heads as a recipe says; train list, train show RECIPE, train resume RUN"),
}


def usage() -> str:
    """The commands, one a line."""
    lines = [f"  {name:<12}{about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(["usage: flmm COMMAND ...   (flmm COMMAND --help)", "", *lines])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status.

    0: it succeeded. 1: it failed on the way (another rank, a loss that is not finite). 2: a mistake in the command, the
    configuration or the data. 75: a training was asked to stop, saved, and can be resumed. 130: interrupted. All but
    0 are explained on stderr; errors that nobody foresaw are raised.
    """
    arguments = _without_launcher_options(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        return _explain(f"there is no command {command!r}: use one of {', '.join(COMMANDS)}", 2)
    from clim_train.peers import AgreedError, PeerFailed
    from clim_train.stopping import EXIT_STOPPED, TrainingStopped

    try:
        import_module(f"flmm.{COMMANDS[command][0]}").main(rest)
    except TrainingStopped as stopped:
        return _explain(stopped, EXIT_STOPPED)
    except (AgreedError, PeerFailed) as error:
        return _explain(error, 1)
    except (ValueError, FileNotFoundError) as error:
        return _explain(error, 2)
    except KeyboardInterrupt:
        return _explain("interrupted", 130)
    return 0


def _explain(reason: object, status: int) -> int:
    print(f"flmm: {reason}", file=sys.stderr, flush=True)
    return status


def _without_launcher_options(arguments: Sequence[str]) -> list[str]:
    """DeepSpeed's launcher appends --local_rank=N, which the environment says as well."""
    return [argument for argument in arguments if not argument.startswith(("--local_rank=", "--local-rank="))]
