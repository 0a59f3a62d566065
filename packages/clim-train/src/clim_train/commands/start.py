"""The start of `clim-train`: help and version, which need not wait for torch."""

import sys
from collections.abc import Sequence

from clim_data.command_line import MISTAKE, SUCCEEDED, importing, without_launcher_options

from clim_train.commands.given import wants_json
from clim_train.version import __version__

USAGE = """\
usage: clim-train RECIPE [--section.option value ...]   train; RECIPE --help lists every option
       clim-train resume RUN                            continue a run folder exactly
       clim-train convert RUN                           rewrite its newest checkpoint for another
                                                        number of processes
       clim-train export RUN                            write RUN/model from its newest checkpoint
                                                        (resume, export: --trust lets its
                                                        config.json run commands)
       clim-train list [--json]                         the recipes, their memory and whether they
                                                        run offline, as a table or as JSON
       clim-train show RECIPE                           a recipe's description and all its options
       clim-train estimate RECIPE --gpus 8              memory and time of a run (estimate --help)

RECIPE --preset 24gb (or 12gb): the recipe's steps on one small GPU

one node:   deepspeed --num_gpus 8 --module clim_train RECIPE ...
many nodes: deepspeed --hostfile hosts --module clim_train RECIPE ...
"""


COMMANDS = ("resume", "convert", "export", "show", "estimate")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status, see `exit_status`."""
    words = without_launcher_options(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return SUCCEEDED if words else MISTAKE
    if words[0] == "--version":
        print(f"clim-train {__version__}")
        return SUCCEEDED

    # Imported here: help and version need no table.
    from clim_train.recipes.catalogue import (
        is_recipe,
        list_recipes,
        read_catalogue,
        stored_help,
        unknown_recipe,
    )

    if words[0] == "list":
        print(list_recipes(read_catalogue(), as_json=wants_json(words[1:])))
        return SUCCEEDED
    if words[0] not in COMMANDS and not is_recipe(words[0]):
        raise ValueError(unknown_recipe(words[0], read_catalogue()))
    if list(words[1:]) in (["--help"], ["-h"]) and (text := stored_help(words[0])) is not None:
        print(text)
        return SUCCEEDED

    with importing():  # torch and the methods take seconds
        from clim_train.commands.main import main as run

    return run(words)
