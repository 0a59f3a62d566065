"""The commands of `clim-eval`, and how they start and end."""

import argparse
import sys
from collections.abc import Sequence

import torch
import torch.distributed as dist
from clim_data.command_line import CommandParser, run_command, without_launcher_options
from clim_data.processes import Ranks, local_device, watch_launcher

from clim_eval.commands import (
    alpha,
    detect,
    detection,
    embed,
    pseudo_label,
    regions,
    report,
    rescore,
    retrieval,
    show,
    zeroshot,
)
from clim_eval.version import __version__

# In the order of the help. A command's module has `add(commands)` and `run(options)`.
COMMANDS = (
    regions,
    retrieval,
    zeroshot,
    alpha,
    embed,
    pseudo_label,
    report,
    show,
    detect,
    detection,
    rescore,
)
SHARED = ("regions", "retrieval", "zeroshot", "alpha")  # evaluations whose items the ranks share


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status, see `run_command`."""
    words = without_launcher_options(sys.argv[1:] if argv is None else argv)
    options = build_parser().parse_args(words)
    watch_launcher()
    return run_command(f"clim-eval {options.command}", _run, options)


def _run(options: argparse.Namespace) -> None:
    started = _join_process_group(options)
    try:
        options.run(options)
    finally:
        if started:
            dist.destroy_process_group()


def build_parser() -> CommandParser:
    """Return the parser of all commands."""
    parser = CommandParser(
        prog="clim-eval",
        description="Evaluate region-trained CLIP models and picture what they see.",
    )
    parser.add_argument("--version", action="version", version=f"clim-eval {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for module in COMMANDS:
        module.add(commands)
    return parser


def _join_process_group(options: argparse.Namespace) -> bool:
    """Share the work between the ranks of torchrun or the deepspeed launcher, if there are any."""
    if Ranks.of_launcher().world_size < 2 or options.command not in SHARED:
        return False

    if options.device is None and torch.cuda.is_available():
        options.device = str(local_device())
        torch.cuda.set_device(options.device)
    dist.init_process_group("nccl" if str(options.device).startswith("cuda") else "gloo")
    return True
