"""The numbers of a run: a live bar, `metrics.jsonl` and loggers, all on rank 0 only."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from clim_data.files import write_text
from clim_data.processes import Ranks, gather_objects, local_device
from torch import Tensor

from clim_train.run.loggers import RunLogger
from clim_train.run.progress import duration, open_progress


class RunningMean:
    """Means of device scalars since the last `reduce`, each over the micro-batches that have it.

    Sums stay on the device, so adding does not wait for it. A scalar may be missing from some
    micro-batches, or from all of a rank.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Add the scalars of one micro-batch."""
        for name, value in scalars.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._counts[name] = self._counts.get(name, 0) + 1

    def peek(self, name: str) -> float:
        """Return the mean over all ranks of a scalar that each has, and go on adding.
        Collective."""
        mean = self._sums[name].reshape(1) / self._counts[name]
        if not Ranks.of_group().is_single:
            dist.all_reduce(mean)
        return float(mean) / Ranks.of_group().world_size

    def reduce(self) -> dict[str, float]:
        """Return the means over all ranks, and start anew. Collective; waits for the device."""
        # The sums of a rank must lie at the same places as those of the others.
        names = sorted({name for own in gather_objects(sorted(self._sums)) for name in own})
        if not names:
            return {}

        device = next(iter(self._sums.values())).device if self._sums else local_device()
        zero = torch.zeros((), device=device)
        sums = torch.stack([self._sums.get(name, zero).reshape(()) for name in names])
        counts = torch.tensor([float(self._counts.get(name, 0)) for name in names], device=device)
        if not Ranks.of_group().is_single:
            both = torch.stack([sums, counts])
            dist.all_reduce(both)
            sums, counts = both.unbind()

        self.load_state_dict({"sums": {}, "counts": {}})
        return dict(zip(names, (sums / counts).tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return sums and counts, on the CPU."""
        sums = {name: value.cpu() for name, value in self._sums.items()}
        return {"sums": sums, "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device | str = "cpu") -> None:
        """Continue from what `state_dict` returned, on `device`."""
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        # Checkpoints of earlier releases have one count for all.
        self._counts = dict(state.get("counts") or dict.fromkeys(self._sums, state.get("count", 0)))


def sum_over_ranks(count: int, device: torch.device) -> int:
    """Return the sum of the counts of all ranks. Collective."""
    if Ranks.of_group().is_single:
        return count
    total = torch.tensor([count], device=device)
    dist.all_reduce(total)
    return int(total)


class MetricLog:
    """Writes metrics of a run folder; on ranks other than 0 it does nothing.

    Args:
        folder: of the run.
        start: first step that will be written; later lines of an interrupted run are removed.
        total: steps of the run, for the bar.
        bar: show where the run is, see `open_progress`.
        loggers: further destinations of the metrics.
        active: False on other ranks.
        resume: the command that continues the run when it was stopped.
    """

    def __init__(
        self,
        folder: Path,
        *,
        start: int,
        total: int,
        bar: bool,
        loggers: Sequence[RunLogger] = (),
        active: bool,
        resume: str,
    ) -> None:
        self._active = active
        self._shows = bar
        self._start, self._total = start, total
        self._resume = resume
        self.restart_clock(start)
        if not active:
            return

        self.path = Path(folder) / "metrics.jsonl"
        # A run that starts over evaluates step 0 again.
        _drop_lines_after(self.path, start or -1)
        self._file = os.fdopen(_open_to_append(self.path), "a")
        self._loggers = loggers
        self.progress = open_progress(start, total, enabled=bar)

    def advance(self, step: int, means: RunningMean) -> None:
        """Count a finished step. After the first, print its loss and time. Collective."""
        is_first = self._shows and step == self._start + 1
        loss = means.peek("loss") if is_first else 0.0
        if not self._active:
            return

        self.progress.advance()
        if is_first:
            seconds = time.perf_counter() - self._last[0]
            left = duration(seconds * (self._total - step))
            self.progress.say(
                f"step {step:,} of {self._total:,}: loss {loss:.4g}; {duration(seconds)} for the "
                f"first step, the others take {left} at this speed; `{self._resume}` continues a "
                "stopped run"
            )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line, {"step": step, ...values}, and show it."""
        if not self._active:
            return

        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

        numbers = {name: x for name, x in values.items() if isinstance(x, int | float)}
        for logger in self._loggers:
            logger.log(step, numbers)

        self.progress.show(step, values)

    def flush(self) -> None:
        """Make sure that all lines so far are on the disk."""
        if self._active:
            os.fsync(self._file.fileno())

    def restart_clock(self, step: int) -> None:
        """Do not count the time since the last line (an evaluation, a checkpoint) for the speed."""
        self._last = (time.perf_counter(), step)

    def speed(self, step: int, samples: int) -> dict[str, float]:
        """Return the speed since the previous call: {"samples_per_s", "step_s"}.

        Args:
            step: steps so far.
            samples: what the batches of these steps held, over all ranks.
        """
        now = time.perf_counter()
        then, previous = self._last
        self._last = (now, step)
        seconds = max(now - then, 1e-9)
        return {"samples_per_s": samples / seconds, "step_s": seconds / max(step - previous, 1)}

    def close(self) -> None:
        """Close file, bar and board."""
        if self._active:
            self._file.close()
            self.progress.close()
            for logger in self._loggers:
                logger.close()


def _open_to_append(path: Path) -> int:
    """Open a file, but not through a link: a run folder from elsewhere may hold one."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)


def _drop_lines_after(path: Path, step: int) -> None:
    """Keep the lines up to `step` only, without a last line that was cut short."""
    if not path.is_file():
        return
    kept = [json.dumps(line) + "\n" for line in _whole_lines(path) if line["step"] <= step]
    write_text(path, "".join(kept))


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Return the lines of a run's `metrics.jsonl`.

    A last line that a killed run left half written is not among them.
    """
    return _whole_lines(Path(folder) / "metrics.jsonl")


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines before the first that is not whole: only a killed process leaves one."""
    lines = []
    for text in path.read_bytes().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines
