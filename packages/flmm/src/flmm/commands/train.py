"""`flmm train RECIPE`, `flmm train resume RUN`, and the other commands for runs of the heads."""

import argparse
import inspect
import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from clim_data.command_line import one_argument, typed
from clim_train.commands import RunProgram, given_options, with_given_length

from flmm.refiners.refiner import NO_REFINER
from flmm.training.config import GroundingConfig
from flmm.training.recipes import find_recipe, recipe_table

if TYPE_CHECKING:
    from clim_train import Task, Trainer

USAGE = """\
usage: flmm train RECIPE [--section.option value ...]   train; RECIPE --help lists every option
       flmm train resume RUN                            continue a run folder exactly
       flmm train convert RUN                           rewrite its newest checkpoint for another
                                                        number of processes
       flmm train export RUN                            write RUN/model, the heads, from its newest
                                                        checkpoint (resume, export: --trust lets
                                                        its config.json run commands)
       flmm train estimate RECIPE [...]                 seconds and memory of its first steps,
                                                        and hours of the run
       flmm train presence --checkpoint HEADS [...]     fit a presence head for trained heads on
                                                        your own phrases; --help says how
       flmm train list                                  the recipes as a table
       flmm train show RECIPE                           a recipe's description and all its options

one node:   deepspeed --num_gpus 8 --module flmm train RECIPE ...
many nodes: deepspeed --hostfile hosts --module flmm train RECIPE ...
"""


def main(argv: Sequence[str]) -> int:
    """Run one command and return 0, or 2 without any.

    Raises ValueError or FileNotFoundError for mistakes of the user, and what `Trainer.fit` raises.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else 2
    PROGRAM.run(argv)
    return 0


def configure(recipe: str, options: Sequence[str]) -> GroundingConfig:
    """Return the recipe's configuration with `--section.option value` applied.

    `--help` prints all options and exits.
    """
    import tyro

    config = tyro.cli(
        GroundingConfig,
        prog=f"flmm train {recipe}",
        default=find_recipe(recipe)(),
        args=list(options),
    )
    return with_given_length(config, given_options(options))


def estimate(arguments: Sequence[str]) -> str:
    """Return the text for `flmm train estimate RECIPE ...`.

    Raises ValueError or FileNotFoundError for options, data or models that are not possible.
    """
    known, rest = estimate_parser().parse_known_args(list(arguments))
    config = configure(known.recipe, rest)
    gpus = find_recipe(known.recipe).facts.gpus if known.gpus is None else known.gpus

    # Imported here: transformers takes seconds, which `list` and `--help` need not wait for.
    from flmm.training.measure import measure_steps, measured_text

    return measured_text(known.recipe, config, measure_steps(config, gpus=gpus, steps=known.steps))


def estimate_parser() -> argparse.ArgumentParser:
    """Return the parser of the own options of `flmm train estimate`."""
    parser = argparse.ArgumentParser(
        prog="flmm train estimate",
        description="Take a few steps of a recipe on your models and data, and say how long the "
        "run will take. Nothing is written. Any option of the recipe may follow.",
    )
    parser.add_argument("recipe")
    parser.add_argument(
        "--gpus", type=int, help="GPUs that will share the run (default: as in the recipe)"
    )
    parser.add_argument("--steps", type=int, default=5, help="steps that are measured (default: 5)")
    return parser


def show(recipe: str) -> str:
    """Return docstring and JSON of a recipe."""
    entry = find_recipe(recipe)
    return f"{recipe}\n\n{inspect.getdoc(entry.function)}\n\n{entry().to_json()}"


def _build_trainer(
    config: GroundingConfig, *, resume: bool, given: frozenset[str] | None = None
) -> "Trainer":
    # Imported here: transformers takes seconds, which `list` and `--help` need not wait for.
    from flmm.training.build import build_trainer

    return build_trainer(config, resume=resume, program="flmm train", given=given)


def _check_names(config: GroundingConfig, source: str) -> None:
    from flmm.hub import check_foreign_source

    check_foreign_source(config.model.lmm, source)
    if config.model.sam != NO_REFINER:
        check_foreign_source(config.model.sam, source)


def _build_task_alone(config: GroundingConfig) -> "Task":
    from flmm.training.build import build_task_alone

    return build_task_alone(config)


def _next_commands(trainer: "Trainer") -> list[str]:
    run = shlex.quote(str(trainer.folder))
    return [
        "next:",
        f'  {typed("flmm")} ground IMAGE "a cat" "the sofa" --checkpoint {run}',
        f"  {typed('flmm')} demo --checkpoint {run}",
    ]


def _sources(config: GroundingConfig) -> Iterable[Any]:
    return [config.data.narratives, config.data.expressions]


def _estimate(rest: Sequence[str]) -> None:
    print(estimate(rest))


def _presence(rest: Sequence[str]) -> None:
    from flmm.commands.presence import run

    run(rest)


def _list(rest: Sequence[str]) -> None:
    print(recipe_table())


def _show(rest: Sequence[str]) -> None:
    print(show(one_argument(rest, "flmm train show RECIPE")))


PROGRAM = RunProgram(
    name="flmm train",
    configure=configure,
    load=GroundingConfig.load,
    sources=_sources,
    check_names=_check_names,
    build=_build_trainer,
    build_task=_build_task_alone,
    finish=_next_commands,
    further={"estimate": _estimate, "presence": _presence, "list": _list, "show": _show},
    result="heads in {}/model/heads.safetensors",
)
