"""`flmm train RECIPE`, `flmm train resume RUN`, `flmm train list`, `flmm train show RECIPE`."""

import inspect
import json
import os
from collections.abc import Sequence
from pathlib import Path

from flmm.grounding_config import GroundingConfig
from flmm.recipes import find_recipe, recipe_table

USAGE = """usage: flmm train RECIPE [--section.option value ...]   train; RECIPE --help lists every option
       flmm train resume RUN                            continue a run folder exactly
       flmm train list                                  the recipes as a table
       flmm train show RECIPE                           a recipe's description and all its options

one node:   deepspeed --num_gpus 8 --module flmm train RECIPE ...
"""


def main(argv: Sequence[str]) -> None:
    """Raises ValueError or FileNotFoundError for mistakes of the user, and what `Trainer.fit` raises."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    command, rest = argv[0], list(argv[1:])
    if command == "list":
        print(recipe_table())
    elif command == "show":
        name = _one(rest, "show RECIPE")
        function = find_recipe(name)
        print(f"{name}\n\n{inspect.getdoc(function)}\n\n{function().to_json()}")
    elif command == "resume":
        resume(_one(rest, "resume RUN"))
    else:
        train(configure(command, rest))


def configure(recipe: str, options: Sequence[str]) -> GroundingConfig:
    """The recipe's configuration with `--section.option value` applied; `--help` prints all options and exits."""
    import tyro

    return tyro.cli(GroundingConfig, prog=f"flmm train {recipe}", default=find_recipe(recipe)(), args=list(options))


def train(config: GroundingConfig, *, resuming: bool = False) -> None:
    """Builds what the configuration names and trains it to the end."""
    # Imported here: torch, transformers and deepspeed take seconds, which `list` and `--help` need not wait for.
    from clim_train.engine import choose_device, start_distributed
    from clim_train.peers import failures_shared

    from flmm.grounding_build import build_trainer

    start_distributed(choose_device(config), timeout_minutes=config.engine.timeout_minutes)
    with failures_shared():
        trainer = build_trainer(config, resume=resuming)
        metrics = trainer.fit()
    if trainer.rank == 0:
        loss = f", last loss {metrics['loss']:.4f}" if "loss" in metrics else ""
        print(f"{trainer.step} steps{loss}; heads in {trainer.folder / 'model' / 'heads.safetensors'}")


def resume(run: str) -> None:
    """Continues a run folder at its newest checkpoint, with its own configuration and global batch."""
    from clim_train.cli import keep_global_batch

    config = GroundingConfig.load(run)
    # config.json has the images per process that the run was started with, whoever continued it since.
    before = json.loads((Path(run) / "versions.json").read_text())["processes"]
    train(keep_global_batch(config, before, int(os.environ.get("WORLD_SIZE", "1"))), resuming=True)


def _one(values: Sequence[str], form: str) -> str:
    if len(values) != 1:
        raise ValueError(f"one argument is needed, {len(values)} were given: use `flmm train {form}`")
    return values[0]
