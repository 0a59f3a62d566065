"""The start of `clim-train`: help and version, which need not wait for torch."""

import sys
from collections.abc import Sequence

from clim_data.command_line import MISTAKE, SUCCEEDED, importing, without_launcher_options

from clim_train.version import __version__

USAGE = """\
usage: clim-train RECIPE [--section.option value ...]   train; RECIPE --help lists every option
       clim-train resume RUN                            continue a run folder exactly
       clim-train convert RUN                           rewrite its newest checkpoint for another
                                                        number of processes
       clim-train export RUN                            write RUN/model from its newest checkpoint
                                                        (resume, export: --trust lets its
                                                        config.json run commands)
       clim-train list                                  the recipes as a table
       clim-train show RECIPE                           a recipe's description and all its options
       clim-train estimate RECIPE --gpus 8              memory and time of a run (estimate --help)

RECIPE --preset 24gb (or 12gb): the recipe's steps on one small GPU

one node:   deepspeed --num_gpus 8 --module clim_train RECIPE ...
many nodes: deepspeed --hostfile hosts --module clim_train RECIPE ...
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status, see `exit_status`."""
    words = without_launcher_options(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return SUCCEEDED if words else MISTAKE
    if words[0] == "--version":
        print(f"clim-train {__version__}")
        return SUCCEEDED

    with importing():  # torch and the methods take seconds
        from clim_train.commands.main import main as run

    return run(words)
