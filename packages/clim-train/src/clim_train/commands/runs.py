"""Training a run, continuing, converting and exporting it, and how such a command ends: the same
for every program.

`build(config, resume=...)` makes the `Trainer` of a configuration; `program` is what messages call
the command.
"""

import dataclasses
import errno
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from clim_data.command_line import one_argument
from clim_data.files import replace_file
from clim_data.processes import Ranks

from clim_train.run.checkpoints import UNIVERSAL, CheckpointFolder
from clim_train.run.peers import AgreedError, PeerFailedError, failures_shared
from clim_train.run.stopping import EXIT_STOPPED, TrainingStopped
from clim_train.schedule import warmup_note

if TYPE_CHECKING:
    from clim_train.trainer import Trainer


PLAIN_URLS = ("http://", "https://", "s3://", "gs://", "hf://")

UNSHARDED = (
    "one process has nothing to shard: it runs at ZeRO stage 0 (--engine.zero-stage names another)"
)

Config = TypeVar("Config")


def train_run(
    config: Any,
    build: Callable[..., "Trainer"],
    *,
    program: str,
    resuming: bool = False,
    made: str = "model in {}/model",
) -> None:
    """Trains what the configuration names to the end; `made` is the last word, of what is where in
    the run folder."""
    from clim_train.run.folder import check_run_folder

    _start(config)
    with failures_shared():
        check_run_folder(
            config.run.folder, resume=resuming, program=program
        )  # before loading, which can take minutes
        trainer = build(config, resume=resuming)
        note = warmup_note(trainer.total, config.optim, config.schedule)
        if note and trainer.rank == 0 and not resuming:
            print(f"{program}: {note}", file=sys.stderr, flush=True)
        if (
            config.engine.zero_stage is None
            and trainer.config.engine.zero_stage == 0
            and trainer.rank == 0
        ):
            print(f"{program}: {UNSHARDED}", file=sys.stderr, flush=True)
        metrics = trainer.fit()
    if trainer.rank == 0:
        loss = f", last loss {metrics['loss']:.4f}" if "loss" in metrics else ""
        print(f"{trainer.step} steps{loss}; {made.format(trainer.folder)}")


def resumed_config(config: Config, run: str) -> Config:
    """The configuration of a run for the processes there are now, which keep its global batch."""
    # config.json has the images per process that the run was started with, whoever continued it
    # since.
    before = json.loads((Path(run) / "versions.json").read_text())["processes"]
    return keep_global_batch(config, before, Ranks.of_launcher().world_size)


def keep_global_batch(config: Config, before: int, now: int) -> Config:
    """The configuration for `now` processes whose steps take as many images as those of `before`
    processes.

    Raises ValueError when the images cannot be shared out evenly.
    """
    images = config.data.batch_size * before
    if images % now:
        raise ValueError(
            f"a step of this run has {images} images, which {now} processes cannot share evenly: "
            f"use a number of processes that divides {images}"
        )
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, batch_size=images // now)
    )


def check_sources_are_plain(values: Iterable[Any], run: str) -> None:
    """Raises ValueError if a run folder's options of data name some that are neither a file nor of
    a plain URL.

    `pipe:` sources are shell commands, and some URLs name programs: a folder from elsewhere must
    not bring its own.
    """
    for value in values:
        for source in (
            [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else ()
        ):
            if ":" in str(source) and not str(source).startswith(PLAIN_URLS):
                raise ValueError(
                    f"{run}/config.json reads data from {source!r}, which may run a command: look "
                    "at it, and if you "
                    "trust it, say so with --trust"
                )


def convert_run(run: str) -> Path:
    """Makes the newest checkpoint of a run loadable by any number of processes; returns the new
    folder."""
    from clim_train.engine.deepspeed_compat import to_universal
    from clim_train.run.manifest import checksums, write_manifest

    checkpoint = newest_checkpoint(run)
    final = checkpoint.with_name(checkpoint.name + UNIVERSAL)
    if not final.exists():
        partial = final.with_name(final.name + ".partial")
        to_universal(checkpoint, partial)
        write_manifest(partial, checksums(partial))
        replace_file(partial, final)
    return final


def export_run(config: Any, build: Callable[..., "Trainer"]) -> Path:
    """Writes `RUN/model` from the newest checkpoint of a run that was stopped."""
    _start(config)
    trainer = build(config, resume=True)
    trainer.close()
    trainer.export()
    return trainer.folder / "model"


def newest_checkpoint(run: str) -> Path:
    """The newest whole checkpoint of a run folder. Raises FileNotFoundError where there is none."""
    checkpoint, _ = CheckpointFolder(Path(run) / "checkpoints").newest_whole()
    if checkpoint is None:
        raise FileNotFoundError(
            f"{run} has no complete checkpoint: give the folder of a run that has saved one"
        )
    return checkpoint


def run_and_trust(values: Sequence[str], form: str) -> tuple[str, bool]:
    """The only argument, and whether --trust is given."""
    return one_argument(
        [value for value in values if value != "--trust"], form
    ), "--trust" in values


def exit_status(command: Callable[[], None], *, program: str, resume: str) -> int:
    """Runs a command and returns its exit status; all but 0 are explained on stderr. `resume`: what
    continues a run.

    0: it succeeded. 1: it failed on the way (another rank, a full disk, a loss that is not finite).
    2: a mistake in the command, the configuration or the data, or a package that is not installed.
    75: it was asked to stop, saved, and can be resumed. 130: interrupted outside of training.
    Errors that nobody foresaw are raised.
    """

    def explain(reason: object, status: int) -> int:
        print(f"{program}: {reason}", file=sys.stderr, flush=True)
        return status

    try:
        command()
    except TrainingStopped as stopped:
        return explain(stopped, EXIT_STOPPED)
    except (AgreedError, PeerFailedError) as error:
        return explain(error, 1)
    except (ValueError, FileNotFoundError, ImportError) as error:
        return explain(error, 2)
    except (PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        return explain(f"{error}: check that path and who may write there, or name another", 2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return explain(f"{error}: make room, then `{resume}` continues a run that had begun", 1)
    except KeyboardInterrupt:
        return explain(
            f"interrupted; a run that has saved a checkpoint continues with `{resume}`", 130
        )
    return 0


def _start(config: Any) -> None:
    # Imported here: torch and deepspeed take seconds, which `list` and `--help` need not wait for.
    from clim_train.engine.deepspeed_compat import start_distributed
    from clim_train.options.device import choose_device

    start_distributed(choose_device(config.engine), timeout_minutes=config.engine.timeout_minutes)
