"""One trainer for every task: set up, fit, log, evaluate, save, export."""

import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from clim_data.processes import Ranks

from clim_train.engine.deepspeed_compat import start_distributed
from clim_train.engine.engine import Engine
from clim_train.export import RunWeights
from clim_train.options.device import choose_device
from clim_train.options.run_options import RunOptions
from clim_train.run.checkpoints import UNIVERSAL, CheckpointFolder, write_together
from clim_train.run.finite import FiniteWatch
from clim_train.run.lock import hold, only_writer, release
from clim_train.run.metrics import MetricLog, RunningMean, sum_over_ranks
from clim_train.run.micro_batches import MicroBatches
from clim_train.run.peers import AgreedError, failures_shared
from clim_train.run.randomness import random_states, seed_everything, set_random_states
from clim_train.run.resuming import needs_universal, newest_whole
from clim_train.run.skips import SkipCount
from clim_train.run.stopping import (
    NoCheckpointError,
    StopRequest,
    StopVote,
    TrainingStopped,
    WaitEnded,
)
from clim_train.run_files import loggers_of, prepare_folder, read_state, write_state
from clim_train.schedule import learning_rate, total_steps
from clim_train.task import Loader, Task

logger = logging.getLogger(__name__)

Evaluators = Mapping[str, Callable[[], Mapping[str, float]]]
"""Name -> function that returns metrics."""


class Trainer:
    """Trains a task on a loader and writes the run folder.

    Use it as a context manager, or call `close`: one trainer at a time can be open in a process.

    Args:
        config: says how to train. Its other sections (`model`, `task`) are only recorded: `task`
            and `loader` are what is used.
        task: its model must not be shared with another trainer that is still open.
        loader: see `Loader`.
        evaluators: their metrics appear as "name/metric". Every rank calls them.
        resume: continue from the newest checkpoint of `config.run.folder`.
        program: the command to name in messages, `clim-train` or `flmm train`.

    Raises ValueError where the run folder has another run (or none, with `resume`), where it has
    checkpoints and none is whole, and where the machine cannot do what `config.engine` asks for.
    """

    def __init__(
        self,
        config: RunOptions,
        task: Task,
        loader: Loader,
        evaluators: Evaluators | None = None,
        *,
        resume: bool = False,
        program: str = "clim-train",
    ) -> None:
        self.config = config
        self.task = task
        self.loader = loader
        self.program = program
        self.evaluators = dict(evaluators or {})
        self.folder = Path(config.run.folder)
        self.checkpoints = CheckpointFolder(self.folder / "checkpoints", config.run.keep)

        self.step = 0
        self.total = total_steps(len(loader), config.engine.accumulation, config.schedule)
        self.metrics: dict[str, float] = {}
        self._means = RunningMean()
        self._finite = FiniteWatch()
        self._is_open = False
        self.setup(resume)

    # -- set up --------------------------------------------------------------------------------

    def setup(self, resume: bool) -> None:
        """Join the process group, open the run folder and start the engine. Collective."""
        self.device = choose_device(self.config.engine)
        start_distributed(self.device, timeout_minutes=self.config.engine.timeout_minutes)
        self.rank, self.world_size = Ranks.of_group()

        hold(self.folder)
        try:
            self._open(resume)
        except BaseException:
            if self._is_open:
                self.engine.discard()
            release(self.folder)
            raise

    def _open(self, resume: bool) -> None:
        # A run keeps the stage that its folder names, whoever resumes it with how many ranks.
        engine = self.config.engine.for_ranks(self.world_size)
        self.config = replace(self.config, engine=engine)
        where = (self.checkpoints, self.device)
        prepare_folder(self.config, *where, self.loader, resume=resume, program=self.program)

        checkpoint = newest_whole(self.checkpoints) if resume else None
        stage = engine.zero_stage or 0
        universal = checkpoint is not None and needs_universal(
            checkpoint, zero_stage=stage, program=self.program
        )

        self._weights = RunWeights(self.task, self.folder, resume=resume)
        seed_everything(self.config.run.seed + self.rank)
        self.engine = Engine(self.task, self.config, device=self.device, universal=universal)
        self._is_open = True
        self._data = MicroBatches(self.loader, accumulation=engine.accumulation, device=self.device)
        if checkpoint is not None:
            self._load(checkpoint, universal)
        self._last_good = checkpoint

        run = self.config.run
        self._skips = SkipCount(self.loader, self.device)
        self.metric_log = MetricLog(
            self.folder,
            start=self.step,
            total=self.total,
            bar=run.bar,
            loggers=loggers_of(self.config, self.step),
            active=self.rank == 0,
            resume=f"{self.program} resume {self.folder}",
        )

    # -- fit -----------------------------------------------------------------------------------

    def fit(self) -> dict[str, float]:
        """Train to the last step, evaluate, save and export; return the last metrics.

        Afterwards the trainer is closed and `task.model` has the trained weights (the export has
        interpolated ones).

        Raises on every rank, whichever of them had the cause: TrainingStopped after SIGTERM or
        SIGINT (handled meanwhile, see `StopRequest`), when the step is finished and a checkpoint
        saved, NoCheckpointError where no data came to finish it; NotFiniteError for a loss or
        weights that are not finite; CheckpointWriteError; PeerFailedError where another rank's
        error ends this one.
        """
        with (
            failures_shared(),
            only_writer(self.folder),
            StopRequest() as request,
            StopVote(request) as vote,
            closing(self._data),
        ):
            if self.step == 0:
                self.evaluate()

            while self.step < self.total:
                batch = self._next_batch(request)
                scalars = self.engine.forward_backward(batch)
                self._finite.add(self.step + 1, scalars["loss"], batch)
                self._means.add(scalars)
                self.engine.step(self.lr)
                if self._data.fill_a_step:
                    self._finish_step(vote.stop())

            self._report_skips()
            self.close()
            self.export()
        return self.metrics

    def _finish_step(self, stop: bool) -> None:
        """Count the optimizer step, then log, evaluate, save and stop when it is time to."""
        run = self.config.run
        self.step += 1
        self._data.end_step()
        self.metric_log.advance(self.step, self._means)

        done = self.step == self.total
        if self.step % run.log_every == 0 or done:
            self.log()
        if done or (run.eval_every and self.step % run.eval_every == 0):
            self.evaluate()
        if done or stop or self.step % run.save_every == 0:
            self.save()

        if stop and not done:
            self._report_skips()
            raise TrainingStopped(self.step, self.folder, self.program)

    @property
    def lr(self) -> float:
        """Learning rate of the next optimizer step."""
        return learning_rate(self.step, self.total, self.config.optim, self.config.schedule)

    def _next_batch(self, request: StopRequest) -> Any:
        """Wait for a micro-batch; where none comes, save what there is and end."""
        try:
            return self._data.next(request)
        except (WaitEnded, RuntimeError, OSError, MemoryError) as error:
            saved = self._save_between_steps()
            if not isinstance(error, WaitEnded):
                raise
            ended = TrainingStopped if saved else NoCheckpointError
            raise ended(self.step, self.folder, self.program) from None

    def _save_between_steps(self) -> bool:
        """Save the last whole step, unless it is saved; return whether there is a checkpoint."""
        # To save is collective, and other ranks may be in the middle of the next step.
        if self.step == 0 or self.world_size > 1:
            return False
        if self._last_good is None or self._last_good.name != CheckpointFolder.name(self.step):
            self.save()
        return True

    # -- log -----------------------------------------------------------------------------------

    def log(self) -> None:
        """Write one line of metrics: means since the previous line, over all ranks. Collective.

        Raises NotFiniteError, before anything is written, where a loss was not finite.
        """
        self._finite.check(self._last_good)
        config = self.config

        values = {**self._means.reduce(), **self._skips.total()}
        if self.engine.updates_left_out:
            values["updates_left_out"] = self.engine.updates_left_out
        # The step is counted already, so its learning rate has the number before it.
        values["lr"] = learning_rate(self.step - 1, self.total, config.optim, config.schedule)
        values["epoch"] = self.step / (len(self.loader) // config.engine.accumulation)
        samples = sum_over_ranks(self._data.take_samples(), self.device)
        values.update(self.metric_log.speed(self.step, samples))
        self._record(values)

    def _restart_clock(self) -> None:
        """Leave the samples and the time up to now out of the speed."""
        self._data.take_samples()
        self.metric_log.restart_clock(self.step)

    def _record(self, values: Mapping[str, float]) -> None:
        self.metrics.update(values)
        self.metric_log.write(self.step, values)

    def _report_skips(self) -> None:
        """Name the samples that the loader skipped, in `skipped.json` and a warning. Collective."""
        path = self.folder / "skipped.json"
        summary = self._skips.write(path)
        if summary and self.rank == 0:
            logger.warning("samples were skipped, all named in %s:\n%s", path, summary)

    # -- evaluate ------------------------------------------------------------------------------

    def evaluate(self) -> dict[str, float]:
        """Run the evaluators on the model as it is. Collective.

        Training afterwards is as if there had been no evaluation.
        """
        values: dict[str, float] = {}
        random_state = random_states()
        with self.engine.evaluating(), torch.no_grad():
            for name, evaluator in self.evaluators.items():
                for metric, value in evaluator().items():
                    values[f"{name}/{metric}"] = value
        set_random_states(random_state)

        if values:
            self._record(values)
        self._restart_clock()
        return values

    # -- save ----------------------------------------------------------------------------------

    def save(self) -> Path:
        """Write a checkpoint of everything that decides the next steps. Collective.

        It is complete or does not exist. Raises NotFiniteError (nothing is written then) or
        CheckpointWriteError.
        """
        self._finite.check(self._last_good)
        self._finite.check_weights(self.engine.weights_finite(), self._last_good)

        # A checkpoint is never newer than its metrics.
        self.metric_log.flush()
        self._last_good = write_together(
            self.checkpoints, self.step, self._write_parts, program=self.program
        )
        self._restart_clock()
        return self._last_good

    def _write_parts(self, partial: Path) -> None:
        """Write this rank's files of a checkpoint."""
        self.engine.save(partial.parent, partial.name)
        state = {"step": self.step, "metrics": self.metrics, **self._data.state_dict()}
        write_state(partial, state, self._means)

    def _load(self, checkpoint: Path, universal: bool) -> None:
        """Continue from a checkpoint, or from its conversion where `universal`."""
        tag = checkpoint.name + (UNIVERSAL if universal else "")
        self.engine.load(checkpoint.parent, tag)

        state = read_state(checkpoint, self._means, self.device)
        self.step = state["step"]
        self.metrics = state["metrics"]
        self._data.load_state_dict(state)

    def export(self) -> Path | None:
        """Write `model/` of the run folder on rank 0; call it after `close`.

        Its weights are `run.alpha` * trained + (1 - `run.alpha`) * start. Next to it,
        `trained.safetensors` has the trained weights as they are, under the names of
        `start.safetensors`: any other alpha can be made of these files.

        Returns the folder, or None on other ranks.
        """
        if self._is_open:
            raise ValueError("the engine still holds the weights: call close() before export()")
        if self.rank != 0:
            return None

        return self._weights.write(self.config.run.alpha)

    # -- end -----------------------------------------------------------------------------------

    def close(self) -> None:
        """End the engine; `task.model` is whole again, trained, in its start precision."""
        if not self._is_open:
            return
        self._is_open = False
        self.metric_log.close()

        self._weights.restore(self.engine.close())
        release(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is None or self.world_size == 1 or issubclass(kind, AgreedError):
            self.close()
        elif self._is_open:
            # The rest is collective, and the other ranks are elsewhere.
            self.metric_log.close()
            release(self.folder)
