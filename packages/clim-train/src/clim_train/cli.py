"""The command `clim-train`, also `python -m clim_train` and `deepspeed --module clim_train`."""

import dataclasses
import inspect
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from clim_train.checkpoints import UNIVERSAL, CheckpointFolder
from clim_train.config import TrainConfig
from clim_train.recipes import find_recipe, recipe_table

USAGE = """usage: clim-train RECIPE [--section.option value ...]   train; RECIPE --help lists every option
       clim-train resume RUN                            continue a run folder exactly
       clim-train convert RUN                           rewrite its newest checkpoint for another number of processes
       clim-train export RUN                            write RUN/model from its newest checkpoint
       clim-train list                                  the recipes as a table
       clim-train show RECIPE                           a recipe's description and all its options

one node:   deepspeed --num_gpus 8 --module clim_train RECIPE ...
many nodes: deepspeed --hostfile hosts --module clim_train RECIPE ...
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0 when it succeeded, 2 after a user's mistake (explained on stderr)."""
    arguments = _without_launcher_options(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    command, rest = arguments[0], arguments[1:]
    try:
        if command == "list":
            print(recipe_table())
        elif command == "show":
            print(show(_one(rest, "show RECIPE")))
        elif command == "resume":
            resume(_one(rest, "resume RUN"))
        elif command == "convert":
            print(convert(_one(rest, "convert RUN")))
        elif command == "export":
            print(export(_one(rest, "export RUN")))
        else:
            train(configure(command, rest))
    except (ValueError, FileNotFoundError) as error:
        print(f"clim-train: {error}", file=sys.stderr)
        return 2
    return 0


def configure(recipe: str, options: Sequence[str]) -> TrainConfig:
    """The recipe's configuration with `--section.option value` applied. `--help` prints all options and exits."""
    import tyro

    default = find_recipe(recipe)()
    # The recipe's kinds of task and data stay: their options are flags, not subcommands.
    kind = tyro.conf.AvoidSubcommands[TrainConfig]
    return tyro.cli(kind, prog=f"clim-train {recipe}", default=default, args=list(options))


def show(recipe: str) -> str:
    """Docstring and JSON of a recipe."""
    function = find_recipe(recipe)
    return f"{recipe}\n\n{inspect.getdoc(function)}\n\n{function().to_json()}"


def train(config: TrainConfig, *, resuming: bool = False) -> None:
    """Builds what the configuration names and trains it to the end."""
    trainer = _trainer(config, resuming=resuming)
    try:
        metrics = trainer.fit()
    except KeyboardInterrupt:
        raise SystemExit(
            f"interrupted at step {trainer.step}: `clim-train resume {trainer.folder}` continues"
        ) from None
    if trainer.rank == 0:
        loss = f", last loss {metrics['loss']:.4f}" if "loss" in metrics else ""
        print(f"{trainer.step} steps{loss}; model in {trainer.folder / 'model'}")


def resume(run: str) -> None:
    """Continues a run folder at its newest checkpoint, with its own configuration and global batch."""
    config = TrainConfig.load(run)
    checkpoint = CheckpointFolder(Path(run) / "checkpoints").latest()
    if checkpoint is not None:
        before = json.loads((checkpoint / "trainer.json").read_text())["world_size"]
        config = keep_global_batch(config, before, int(os.environ.get("WORLD_SIZE", "1")))
    train(config, resuming=True)


def keep_global_batch(config: TrainConfig, before: int, now: int) -> TrainConfig:
    """The configuration for `now` processes whose steps take as many images as those of `before` processes.

    Raises ValueError when the images cannot be shared out evenly.
    """
    images = config.data.batch_size * before
    if images % now:
        raise ValueError(
            f"a step of this run has {images} images, which {now} processes cannot share evenly: "
            f"use a number of processes that divides {images}"
        )
    return dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=images // now))


def convert(run: str) -> Path:
    """Makes the newest checkpoint of a run loadable by any number of processes; returns the new folder."""
    from clim_train.engine import to_universal

    checkpoint = _newest_checkpoint(run)
    final = checkpoint.with_name(checkpoint.name + UNIVERSAL)
    if not final.exists():
        partial = final.with_name(final.name + ".partial")
        to_universal(checkpoint, partial)
        partial.rename(final)
    return final


def export(run: str) -> Path:
    """Writes `RUN/model` from the newest checkpoint of a run that was stopped."""
    _newest_checkpoint(run)
    trainer = _trainer(TrainConfig.load(run), resuming=True)
    trainer.close()
    trainer.export()
    return trainer.folder / "model"


def _trainer(config: TrainConfig, *, resuming: bool):
    # Imported here: torch, open_clip and deepspeed take seconds, which `list` and `--help` need not wait for.
    from clim_train.build import build_evaluators, build_loader, build_model, build_task
    from clim_train.engine import choose_device, start_distributed
    from clim_train.trainer import Trainer

    start_distributed(choose_device(config), timeout_minutes=config.engine.timeout_minutes)
    loader = build_loader(config)
    model = build_model(config)
    task = build_task(config, model, getattr(loader, "class_names", ()))
    return Trainer(config, task, loader, build_evaluators(config, model), resume=resuming)


def _newest_checkpoint(run: str) -> Path:
    checkpoint = CheckpointFolder(Path(run) / "checkpoints").latest()
    if checkpoint is None:
        raise FileNotFoundError(f"{run} has no complete checkpoint: give the folder of a run that has saved one")
    return checkpoint


def _one(values: Sequence[str], form: str) -> str:
    if len(values) != 1:
        raise ValueError(f"one argument is needed, {len(values)} were given: use `clim-train {form}`")
    return values[0]


def _without_launcher_options(arguments: Sequence[str]) -> list[str]:
    """DeepSpeed's launcher appends --local_rank=N, which the environment says as well."""
    return [argument for argument in arguments if not argument.startswith(("--local_rank=", "--local-rank="))]
