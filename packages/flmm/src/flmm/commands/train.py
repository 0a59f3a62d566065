"""`flmm train RECIPE`, `flmm train resume RUN`, and what else is done with runs; what they share is
clim-train's."""

import inspect
from collections.abc import Sequence
from pathlib import Path

from flmm.training.config import GroundingConfig
from flmm.training.recipes import find_recipe, recipe_table

PROGRAM = "flmm train"
USAGE = """usage: flmm train RECIPE [--section.option value ...]   train; RECIPE --help lists every option
       flmm train resume RUN                            continue a run folder exactly
       flmm train convert RUN                           rewrite its newest checkpoint for another number of processes
       flmm train export RUN                            write RUN/model, the heads, from its newest checkpoint
                                                        (resume, export: --trust lets its config.json run commands)
       flmm train list                                  the recipes as a table
       flmm train show RECIPE                           a recipe's description and all its options

one node:   deepspeed --num_gpus 8 --module flmm train RECIPE ...
many nodes: deepspeed --hostfile hosts --module flmm train RECIPE ...
"""


def main(argv: Sequence[str]) -> None:
    """Raises ValueError or FileNotFoundError for mistakes of the user, and what `Trainer.fit`
    raises."""
    from clim_data.command_line import one_argument
    from clim_train.commands.runs import convert_run, run_and_trust

    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    command, rest = argv[0], list(argv[1:])
    if command == "list":
        print(recipe_table())
    elif command == "show":
        name = one_argument(rest, f"{PROGRAM} show RECIPE")
        function = find_recipe(name)
        print(f"{name}\n\n{inspect.getdoc(function)}\n\n{function().to_json()}")
    elif command == "resume":
        run, trusted = run_and_trust(rest, f"{PROGRAM} resume RUN")
        resume(run, trusted=trusted)
    elif command == "convert":
        print(convert_run(one_argument(rest, f"{PROGRAM} convert RUN")))
    elif command == "export":
        run, trusted = run_and_trust(rest, f"{PROGRAM} export RUN")
        print(export(run, trusted=trusted))
    else:
        train(configure(command, rest))


def configure(recipe: str, options: Sequence[str]) -> GroundingConfig:
    """The recipe's configuration with `--section.option value` applied; `--help` prints all options
    and exits."""
    import tyro

    return tyro.cli(
        GroundingConfig,
        prog=f"{PROGRAM} {recipe}",
        default=find_recipe(recipe)(),
        args=list(options),
    )


def train(config: GroundingConfig, *, resuming: bool = False) -> None:
    """Builds what the configuration names and trains it to the end."""
    from clim_train.commands.runs import train_run

    made = "heads in {}/model/heads.safetensors"
    train_run(config, _trainer, program=PROGRAM, resuming=resuming, made=made)


def resume(run: str, *, trusted: bool = False) -> None:
    """Continues a run folder at its newest checkpoint, with its own configuration and global batch.

    Raises ValueError for data that could run a command, unless `trusted`.
    """
    from clim_train.commands.runs import resumed_config

    train(resumed_config(_config_of(run, trusted=trusted), run), resuming=True)


def export(run: str, *, trusted: bool = False) -> Path:
    """Writes `RUN/model` from the newest checkpoint of a run that was stopped. `trusted`: as in
    `resume`."""
    from clim_train.commands.runs import export_run, newest_checkpoint

    newest_checkpoint(run)
    return export_run(_config_of(run, trusted=trusted), _trainer)


def _config_of(run: str, *, trusted: bool) -> GroundingConfig:
    from clim_train.commands.runs import check_sources_are_plain

    config = GroundingConfig.load(run)
    if not trusted:
        check_sources_are_plain([config.data.narratives, config.data.expressions], run)
    return config


def _trainer(config: GroundingConfig, *, resume: bool):
    # Imported here: torch, transformers and deepspeed take seconds, which `list` and `--help` need
    # not wait for.
    from flmm.training.build import build_trainer

    return build_trainer(config, resume=resume, program=PROGRAM)
