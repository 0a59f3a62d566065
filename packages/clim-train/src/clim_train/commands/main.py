"""The command `clim-train`, also `python -m clim_train` and `deepspeed --module clim_train`."""

import dataclasses
import inspect
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from clim_data.command_line import one_argument, without_launcher_options

from clim_train.commands.parser import configure
from clim_train.commands.runs import (
    check_sources_are_plain,
    convert_run,
    exit_status,
    export_run,
    newest_checkpoint,
    resumed_config,
    run_and_trust,
    train_run,
)
from clim_train.config import TrainConfig
from clim_train.recipes.table import find_recipe, recipe_table

USAGE = """\
usage: clim-train RECIPE [--section.option value ...]   train; RECIPE --help lists every option
       clim-train resume RUN                            continue a run folder exactly
       clim-train convert RUN                           rewrite its newest checkpoint for another number of processes
       clim-train export RUN                            write RUN/model from its newest checkpoint
                                                        (resume, export: --trust lets its config.json run commands)
       clim-train list                                  the recipes as a table
       clim-train show RECIPE                           a recipe's description and all its options
       clim-train estimate RECIPE --gpus 8              memory and time it will take (estimate --help)

RECIPE --preset 24gb (or 12gb): the recipe's steps on one small GPU

one node:   deepspeed --num_gpus 8 --module clim_train RECIPE ...
many nodes: deepspeed --hostfile hosts --module clim_train RECIPE ...
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status, see `exit_status`."""
    arguments = without_launcher_options(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    command = partial(_command, arguments[0], arguments[1:])
    return exit_status(command, program="clim-train", resume="clim-train resume RUN")


def _command(command: str, rest: Sequence[str]) -> None:
    if command == "list":
        print(recipe_table())
    elif command == "show":
        print(show(one_argument(rest, "clim-train show RECIPE")))
    elif command == "estimate":
        from clim_train.commands.estimate import estimate_recipe

        print(estimate_recipe(rest, configure))
    elif command == "resume":
        run, trusted = run_and_trust(rest, "clim-train resume RUN")
        resume(run, trusted=trusted)
    elif command == "convert":
        print(convert_run(one_argument(rest, "clim-train convert RUN")))
    elif command == "export":
        run, trusted = run_and_trust(rest, "clim-train export RUN")
        print(export(run, trusted=trusted))
    else:
        train(configure(command, rest))


def show(recipe: str) -> str:
    """Return docstring and JSON of a recipe."""
    entry = find_recipe(recipe)
    return f"{recipe}\n\n{inspect.getdoc(entry.function)}\n\n{entry().to_json()}"


def train(config: TrainConfig, *, resuming: bool = False) -> None:
    """Builds what the configuration names and trains it to the end."""
    train_run(config, _trainer, program="clim-train", resuming=resuming)


def resume(run: str, *, trusted: bool = False) -> None:
    """Continues a run folder at its newest checkpoint, with its own configuration and global batch.

    Raises ValueError for data that could run a command, unless `trusted` (see `check_sources_are_plain`).
    """
    train(resumed_config(_config_of(run, trusted=trusted), run), resuming=True)


def export(run: str, *, trusted: bool = False) -> Path:
    """Writes `RUN/model` from the newest checkpoint of a run that was stopped. `trusted`: as in
    `resume`."""
    newest_checkpoint(run)
    return export_run(_config_of(run, trusted=trusted), _trainer)


def _config_of(run: str, *, trusted: bool) -> TrainConfig:
    config = TrainConfig.load(run)
    if not trusted:
        check_sources_are_plain(dataclasses.asdict(config.data).values(), run)
    return config


def _trainer(config: TrainConfig, *, resume: bool):
    # Imported here: torch and open_clip take seconds, which `list` and `--help` need not wait for.
    from clim_train.build import build_evaluators, build_loader, build_model, build_task
    from clim_train.trainer import Trainer

    loader = build_loader(config)
    model = build_model(config)
    task = build_task(config, model, getattr(loader, "class_names", ()))
    return Trainer(config, task, loader, build_evaluators(config, model), resume=resume)
