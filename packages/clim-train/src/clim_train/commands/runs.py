"""Commands for runs, shared by all programs: train, resume, convert and export.

`clim-train` and `flmm train` are two such programs.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from clim_data.command_line import FAILED, one_argument, run_command
from clim_data.files import replace_file
from clim_data.processes import Ranks

from clim_train.commands.given import given_options
from clim_train.options.paths import output_folders
from clim_train.options.run_options import RunOptions
from clim_train.run.checkpoints import UNIVERSAL, CheckpointFolder
from clim_train.run.curve import write_loss_curve
from clim_train.run.folder import check_run_folder, refuse_links, remove
from clim_train.run.lock import FolderInUseError, only_writer
from clim_train.run.loggers import check_loggers
from clim_train.run.peers import AgreedError, PeerFailedError, failures_shared
from clim_train.run.stopping import EXIT_STOPPED, NoCheckpointError, TrainingStopped
from clim_train.schedule import warmup_note

if TYPE_CHECKING:
    from clim_train.task import Task
    from clim_train.trainer import Trainer

PLAIN_URLS = ("http://", "https://", "s3://", "gs://", "hf://")

# What a training adds to the exit table of `run_command`; the first class that fits counts.
STATUSES = {
    TrainingStopped: EXIT_STOPPED,
    NoCheckpointError: EXIT_STOPPED,
    FolderInUseError: 2,  # a mistake of the user
    AgreedError: FAILED,
    PeerFailedError: FAILED,
}

Config = TypeVar("Config", bound=RunOptions)

Command = Callable[[Sequence[str]], None]
"""Runs with the arguments after the command's name."""


def _nothing_more(trainer: "Trainer") -> Iterable[str]:
    return ()


@dataclass(frozen=True)
class RunProgram(Generic[Config]):
    """A command line that trains recipes and continues their runs."""

    name: str
    """The command to name in messages: `clim-train`, `flmm train`."""

    configure: Callable[[str, Sequence[str]], Config]
    """Returns a recipe's configuration with options of the command line applied."""

    load: Callable[[str], Config]
    """Reads the configuration of a run folder."""

    sources: Callable[[Config], Iterable[Any]]
    """Returns the options that may name data: text, or lists of text."""

    check_names: Callable[[Config, str], None]
    """`check_names(config, source)` raises ValueError for names of models that may bring code."""

    build: Callable[..., "Trainer"]
    """`build(config, resume=..., given=...)` makes the trainer of a configuration. `given` are the
    options of the user (see `given_options`); None leaves the configuration as it is."""

    build_task: Callable[[Config], "Task"]
    """Makes the task alone, for an export: it reads the weights of the start, and no data."""

    further: Mapping[str, Command] = field(default_factory=dict)
    """Name -> command, for commands that concern no run: `list`, `show`."""

    finish: Callable[["Trainer"], Iterable[str]] = _nothing_more
    """Draws the effect of a finished training, and returns lines to print, such as next
    commands."""

    result: str = "model in {}/model"
    """Format of the last line of a training: where in the run folder its result is."""

    def run(self, arguments: Sequence[str]) -> None:
        """Run one command; the first of `arguments` names it, or is a recipe.

        Raises ValueError and FileNotFoundError for mistakes of the user, and what `Trainer.fit`
        raises.
        """
        name, *rest = arguments
        commands: dict[str, Command] = {
            "resume": self._resume,
            "convert": self._convert,
            "export": self._export,
            **self.further,
        }
        if name in commands:
            commands[name](rest)
        else:
            self.train(self.configure(name, rest), given=given_options(rest))

    def train(
        self,
        config: Config,
        *,
        resuming: bool = False,
        given: frozenset[str] | None = None,
    ) -> None:
        """Train the run to its last step and print where the result is.

        Args:
            config: of the run.
            resuming: continue the newest checkpoint of its folder.
            given: options that the user gave: the others may be chosen for the machine and the
                data. None chooses nothing.
        """
        check_loggers(config.run)
        start_engine(config)
        with failures_shared():
            # Before the data and the model are loaded, which can take minutes.
            check_run_folder(config.run.folder, resume=resuming, program=self.name)
            with only_writer(config.run.folder):
                refuse_links(config.run.folder)
                trainer = self.build(config, resume=resuming, given=given)
                if trainer.rank == 0 and not resuming:
                    self._print_note(trainer)
                metrics = trainer.fit()

        if trainer.rank == 0:
            self._print_result(trainer, metrics)

    def _print_result(self, trainer: "Trainer", metrics: Mapping[str, float]) -> None:
        """Print where the result of a training is, draw its loss, and print the next commands."""
        loss = f", last loss {metrics['loss']:.4g}" if "loss" in metrics else ""
        print(f"{trainer.step} steps{loss}; {self.result.format(trainer.folder)}")
        curve = write_loss_curve(trainer.folder)
        if curve is not None:
            print(f"loss: {curve}")
        for line in self.finish(trainer):
            print(line)

    def resume(self, run: str, *, trusted: bool = False) -> None:
        """Continue a run folder with its own configuration and global batch.

        Raises ValueError for data that could run a command, unless `trusted` (see
        `check_sources_are_plain`).
        """
        self.train(resumed_config(self._config_of(run, trusted=trusted), run), resuming=True)

    def export(self, run: str, *, trusted: bool = False) -> Path:
        """Write `RUN/model` from the newest checkpoint of a run that was stopped.

        The data of the run are not needed. `trusted` as in `resume`.
        """
        from clim_train.export import export_checkpoint

        newest_checkpoint(run)
        config = self._config_of(run, trusted=trusted)

        start_engine(config)
        with failures_shared(), only_writer(run):
            refuse_links(run)
            return export_checkpoint(config, self.build_task(config), program=self.name)

    def _config_of(self, run: str, *, trusted: bool) -> Config:
        config = self.load(run)
        if not trusted:
            check_sources_are_plain(self.sources(config), run)
            check_outputs_are_there(config, run)
            self.check_names(config, f"{run}/config.json")
        return config

    def _print_note(self, trainer: "Trainer") -> None:
        """Print warnings about this run."""
        note = warmup_note(trainer.total, trainer.config.optim, trainer.config.schedule)
        if note:
            print(f"{self.name}: {note}", file=sys.stderr, flush=True)

    def _resume(self, rest: Sequence[str]) -> None:
        run, trusted = run_and_trust(rest, f"{self.name} resume RUN")
        self.resume(run, trusted=trusted)

    def _convert(self, rest: Sequence[str]) -> None:
        print(convert_run(one_argument(rest, f"{self.name} convert RUN")))

    def _export(self, rest: Sequence[str]) -> None:
        run, trusted = run_and_trust(rest, f"{self.name} export RUN")
        print(self.export(run, trusted=trusted))


def start_engine(config: RunOptions) -> None:
    """Join the process group, on the device that the configuration asks for."""
    # Imported here: torch and deepspeed take seconds, which `list` and `--help` need not wait for.
    from clim_train.engine.deepspeed_compat import start_distributed
    from clim_train.options.device import choose_device

    device = choose_device(config.engine)
    start_distributed(device, timeout_minutes=config.engine.timeout_minutes)


def resumed_config(config: Config, run: str) -> Config:
    """Return the configuration of a run for today's processes, with the same global batch."""
    # config.json has the images per process of the first start, whoever continued the run since.
    path = Path(run) / "versions.json"
    try:
        before = json.loads(path.read_text())["processes"] if path.is_file() else None
    except (ValueError, KeyError, TypeError):
        before = None
    if type(before) is not int or before < 1:
        raise ValueError(f"{path} does not say how many processes the run had: put back a copy")
    return keep_global_batch(config, before, Ranks.of_launcher().world_size)


def keep_global_batch(config: Config, before: int, now: int) -> Config:
    """Return the configuration for `now` processes with the images per step of `before` processes.

    Raises ValueError where the processes cannot share the images evenly.
    """
    images = config.data.batch_size * before
    if images % now:
        raise ValueError(
            f"a step of this run has {images} images, which {now} processes cannot share evenly: "
            f"use a number of processes that divides {images}"
        )
    data: Any = config.data
    return dataclasses.replace(config, data=dataclasses.replace(data, batch_size=images // now))


def check_sources_are_plain(values: Iterable[Any], run: str) -> None:
    """Raise ValueError if the data of a run folder are neither files nor plain URLs.

    `pipe:` sources are shell commands, and some URLs name programs: a run folder from a stranger
    must not run either.

    Args:
        values: options; only text and lists of text are looked at.
    """
    for value in values:
        sources: Iterable[Any] = ()
        if isinstance(value, str):
            sources = [value]
        elif isinstance(value, list | tuple):
            sources = value

        for source in map(str, sources):
            if ":" in source and not source.startswith(PLAIN_URLS):
                raise ValueError(
                    f"{run}/config.json reads data from {source!r}, which may run a command: look "
                    "at it, and if you trust it, say so with --trust"
                )


def convert_run(run: str) -> Path:
    """Make the newest checkpoint of a run loadable by any number of processes.

    Returns the folder of the rewritten checkpoint.
    """
    newest_checkpoint(run)  # before the lock makes a folder
    with only_writer(run):
        return _convert(run)


def _convert(run: str) -> Path:
    from clim_train.engine.deepspeed_compat import to_universal
    from clim_train.run.manifest import checksums, write_manifest

    refuse_links(run)
    checkpoint = newest_checkpoint(run)  # again: another process may have saved one since
    final = checkpoint.with_name(checkpoint.name + UNIVERSAL)
    if not final.exists():
        partial = final.with_name(final.name + ".partial")
        remove(partial)
        to_universal(checkpoint, partial)
        write_manifest(partial, checksums(partial))
        replace_file(partial, final)
    return final


def check_outputs_are_there(config: RunOptions, run: str) -> None:
    """Raise ValueError if the options of a run folder name a new place to write to.

    An existing folder, such as a cache of earlier runs, may be used.
    """
    for option, value in output_folders(config):
        if not Path(value).is_dir():
            raise ValueError(
                f"{run}/config.json writes to {value!r} ({option}), which is not there: make that "
                "folder, or say with --trust that you trust this run"
            )


def newest_checkpoint(run: str) -> Path:
    """Return the newest whole checkpoint of a run folder.

    Raises FileNotFoundError where there is none.
    """
    checkpoint, _ = CheckpointFolder(Path(run) / "checkpoints").newest_whole()
    if checkpoint is None:
        raise FileNotFoundError(
            f"{run} has no complete checkpoint: give the folder of a run that has saved one"
        )
    return checkpoint


def run_and_trust(values: Sequence[str], form: str) -> tuple[str, bool]:
    """Return the only argument, and whether --trust is among `values`."""
    runs = [value for value in values if value != "--trust"]
    return one_argument(runs, form), "--trust" in values


def exit_status(command: Callable[[], int | None], *, program: str, continues: str) -> int:
    """Run a command and return its exit status, see `run_command`.

    `continues` names the command that continues the work, for messages.

    A training adds to the table: 1 when another rank failed or a loss is not finite, 75 when it
    was asked to stop, saved, and can be resumed.
    """
    return run_command(program, command, continues=continues, statuses=STATUSES)
