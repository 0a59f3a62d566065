"""The commands of `clim-eval`: their table, their start and their end."""

import argparse
import sys
from collections.abc import Callable, Sequence

from clim_data.command_line import (
    CommandParser,
    add_commands,
    run_command,
    without_launcher_options,
)
from clim_data.processes import watch_launcher

from clim_eval.version import __version__

# Command -> its module, imported on use, and what it does, in the order of the help. A module has
# `add(commands)` and `run(options)`.
COMMANDS: dict[str, tuple[str, str]] = {
    "show": ("clim_eval.commands.show", "draw where the model sees each text in an image"),
    "label": (
        "clim_eval.commands.label",
        "name the boxes of a folder of images: one COCO json",
    ),
    "detect": (
        "clim_eval.commands.detect",
        "find objects of any names in images: pictures with boxes, and a COCO json",
    ),
    "regions": (
        "clim_eval.commands.regions",
        "name annotated boxes and masks, mean accuracy over classes",
    ),
    "readouts": (
        "clim_eval.commands.readouts",
        "compare ways to read a model's map: box and mask accuracy, mIoU, sign",
    ),
    "retrieval": (
        "clim_eval.commands.retrieval",
        "image-text retrieval recall in both directions",
    ),
    "zeroshot": (
        "clim_eval.commands.zeroshot",
        "zero-shot classification of images, top-1 and top-5",
    ),
    "alpha": ("clim_eval.commands.alpha", "evaluate a training at several weight interpolations"),
    "detection": (
        "clim_eval.commands.detection",
        "average precision of a detector on COCO, LVIS and their open-vocabulary splits",
    ),
    "rescore": (
        "clim_eval.commands.rescore",
        "combine the scores of any detector with a CLIP's similarity of boxes and class names",
    ),
    "embed": ("clim_eval.commands.embed", "compute class embeddings from prompt templates"),
    "pseudo-label": ("clim_eval.commands.pseudo_label", "name class-agnostic boxes with nouns"),
    "report": ("clim_eval.commands.report", "put several reports side by side"),
}
# Evaluations whose items the ranks of a launcher share.
SHARED = ("regions", "readouts", "retrieval", "zeroshot", "alpha")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status, see `run_command`."""
    words = without_launcher_options(sys.argv[1:] if argv is None else argv)
    options = build_parser(words).parse_args(words)
    watch_launcher()
    return run_command(f"clim-eval {options.command}", _run, options)


def _run(options: argparse.Namespace) -> None:
    leave = _join_process_group(options) if options.command in SHARED else None
    try:
        options.run(options)
    finally:
        if leave is not None:
            leave()


def build_parser(words: Sequence[str] = ()) -> CommandParser:
    """Return the parser of all commands, with the options of the one that `words` begin with."""
    parser = CommandParser(
        prog="clim-eval",
        description="Evaluate region-trained CLIP models and picture what they see.",
    )
    parser.add_argument("--version", action="version", version=f"clim-eval {__version__}")
    add_commands(parser, COMMANDS, words)
    return parser


def _join_process_group(options: argparse.Namespace) -> Callable[[], None] | None:
    """Share the work between the ranks of torchrun or the deepspeed launcher, if there are any.

    Returns the function that leaves the group, None without one.
    """
    # Imported here: torch takes a second, which help and mistakes need not wait for.
    import torch
    import torch.distributed as dist
    from clim_data.processes import Ranks, local_device

    if Ranks.of_launcher().world_size < 2:
        return None

    if options.device is None and torch.cuda.is_available():
        options.device = str(local_device())
        torch.cuda.set_device(options.device)
    dist.init_process_group("nccl" if str(options.device).startswith("cuda") else "gloo")
    return dist.destroy_process_group
