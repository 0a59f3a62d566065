"""The command `clim-train`, also `python -m clim_train` and `deepspeed --module clim_train`."""

import dataclasses
import errno
import inspect
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from clim_train.checkpoints import UNIVERSAL, CheckpointFolder
from clim_train.config import TrainConfig
from clim_train.peers import AgreedError, PeerFailed, failures_shared
from clim_train.presets import on_small_gpu
from clim_train.recipes import find_recipe, recipe_table
from clim_train.schedule import warmup_note
from clim_train.stopping import EXIT_STOPPED, TrainingStopped

PLAIN_URLS = ("http://", "https://", "s3://", "gs://", "hf://")

USAGE = """usage: clim-train RECIPE [--section.option value ...]   train; RECIPE --help lists every option
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
    """Runs one command and returns its exit status.

    0: it succeeded. 1: it failed on the way (another rank, a full disk, a loss that is not finite). 2: a mistake in the
    command, the configuration or the data. 75: it was asked to stop, saved, and can be resumed. 130: interrupted
    outside of training. All but 0 are explained on stderr; errors that nobody foresaw are raised.
    """
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
        elif command == "estimate":
            from clim_train.estimate_command import estimate_recipe

            print(estimate_recipe(rest, configure))
        elif command == "resume":
            run, trusted = _run_and_trust(rest, "resume RUN")
            resume(run, trusted=trusted)
        elif command == "convert":
            print(convert(_one(rest, "convert RUN")))
        elif command == "export":
            run, trusted = _run_and_trust(rest, "export RUN")
            print(export(run, trusted=trusted))
        else:
            train(configure(command, rest))
    except TrainingStopped as stopped:
        return _explain(stopped, EXIT_STOPPED)
    except (AgreedError, PeerFailed) as error:
        return _explain(error, 1)
    except (ValueError, FileNotFoundError) as error:
        return _explain(error, 2)
    except (PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        return _explain(f"{error}: check that path and who may write there, or name another", 2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _explain(f"{error}: make room, then `clim-train resume RUN` continues a run that had begun", 1)
    except KeyboardInterrupt:
        return _explain("interrupted; a run that has saved a checkpoint continues with `clim-train resume RUN`", 130)
    return 0


def _explain(reason: object, status: int) -> int:
    print(f"clim-train: {reason}", file=sys.stderr, flush=True)
    return status


def configure(recipe: str, options: Sequence[str]) -> TrainConfig:
    """The recipe's configuration with `--preset NAME`, then `--section.option value` applied.

    `--help` prints all options and exits.
    """
    import tyro

    entry = find_recipe(recipe)
    default = entry()
    preset, options = _preset(options)
    if preset is not None:
        default = on_small_gpu(default, preset, gpus=entry.facts.gpus)
    # The recipe's kinds of task and data stay: their options are flags, not subcommands.
    kind = tyro.conf.AvoidSubcommands[TrainConfig]
    return tyro.cli(kind, prog=f"clim-train {recipe}", default=default, args=list(options))


def show(recipe: str) -> str:
    """Docstring and JSON of a recipe."""
    function = find_recipe(recipe)
    return f"{recipe}\n\n{inspect.getdoc(function)}\n\n{function().to_json()}"


def train(config: TrainConfig, *, resuming: bool = False) -> None:
    """Builds what the configuration names and trains it to the end."""
    _start(config)
    with failures_shared():
        trainer = _trainer(config, resuming=resuming)
        note = warmup_note(trainer.total, config.optim, config.schedule)
        if note and trainer.rank == 0 and not resuming:
            print(f"clim-train: {note}", file=sys.stderr, flush=True)
        metrics = trainer.fit()
    if trainer.rank == 0:
        loss = f", last loss {metrics['loss']:.4f}" if "loss" in metrics else ""
        print(f"{trainer.step} steps{loss}; model in {trainer.folder / 'model'}")


def resume(run: str, *, trusted: bool = False) -> None:
    """Continues a run folder at its newest checkpoint, with its own configuration and global batch.

    Raises ValueError for data that could run a command, unless `trusted` (see `refuse_commands`).
    """
    config = TrainConfig.load(run)
    if not trusted:
        refuse_commands(config, run)
    # config.json has the images per process that the run was started with, whoever continued it since.
    before = json.loads((Path(run) / "versions.json").read_text())["processes"]
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


def refuse_commands(config: TrainConfig, run: str) -> None:
    """Raises ValueError if a run folder names data that is neither a file nor of a plain URL.

    `pipe:` sources are shell commands, and some URLs name programs: a folder from elsewhere must not bring its own.
    """
    for value in dataclasses.asdict(config.data).values():
        for source in [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else ():
            if ":" in str(source) and not str(source).startswith(PLAIN_URLS):
                raise ValueError(
                    f"{run}/config.json reads data from {source!r}, which may run a command: look at it, and if you "
                    "trust it, say so with --trust"
                )


def convert(run: str) -> Path:
    """Makes the newest checkpoint of a run loadable by any number of processes; returns the new folder."""
    from clim_train.engine import to_universal
    from clim_train.manifest import checksums, write_manifest

    checkpoint = _newest_checkpoint(run)
    final = checkpoint.with_name(checkpoint.name + UNIVERSAL)
    if not final.exists():
        partial = final.with_name(final.name + ".partial")
        to_universal(checkpoint, partial)
        write_manifest(partial, checksums(partial))
        partial.rename(final)
    return final


def export(run: str, *, trusted: bool = False) -> Path:
    """Writes `RUN/model` from the newest checkpoint of a run that was stopped. `trusted`: as in `resume`."""
    _newest_checkpoint(run)
    config = TrainConfig.load(run)
    if not trusted:
        refuse_commands(config, run)
    _start(config)
    trainer = _trainer(config, resuming=True)
    trainer.close()
    trainer.export()
    return trainer.folder / "model"


def _preset(options: Sequence[str]) -> tuple[str | None, list[str]]:
    """`--preset NAME` (or `--preset=NAME`) taken out of the options."""
    options = list(options)
    for place, option in enumerate(options):
        if option == "--preset":
            return "".join(options[place + 1 : place + 2]), options[:place] + options[place + 2 :]
        if option.startswith("--preset="):
            return option.removeprefix("--preset="), options[:place] + options[place + 1 :]
    return None, options


def _start(config: TrainConfig) -> None:
    # Imported here and below: torch, open_clip and deepspeed take seconds, which `list` and `--help` need not wait for.
    from clim_train.engine import choose_device, start_distributed

    start_distributed(choose_device(config), timeout_minutes=config.engine.timeout_minutes)


def _trainer(config: TrainConfig, *, resuming: bool):
    from clim_train.build import build_evaluators, build_loader, build_model, build_task
    from clim_train.trainer import Trainer

    loader = build_loader(config)
    model = build_model(config)
    task = build_task(config, model, getattr(loader, "class_names", ()))
    return Trainer(config, task, loader, build_evaluators(config, model), resume=resuming)


def _newest_checkpoint(run: str) -> Path:
    checkpoint, _ = CheckpointFolder(Path(run) / "checkpoints").newest_whole()
    if checkpoint is None:
        raise FileNotFoundError(f"{run} has no complete checkpoint: give the folder of a run that has saved one")
    return checkpoint


def _run_and_trust(values: Sequence[str], form: str) -> tuple[str, bool]:
    return _one([value for value in values if value != "--trust"], form), "--trust" in values


def _one(values: Sequence[str], form: str) -> str:
    if len(values) != 1:
        raise ValueError(f"one argument is needed, {len(values)} were given: use `clim-train {form}`")
    return values[0]


def _without_launcher_options(arguments: Sequence[str]) -> list[str]:
    """DeepSpeed's launcher appends --local_rank=N, which the environment says as well."""
    return [argument for argument in arguments if not argument.startswith(("--local_rank=", "--local-rank="))]
