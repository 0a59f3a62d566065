"""The numbers of a run: a live bar, `metrics.jsonl` and TensorBoard, all on rank 0 only."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from clim_data.files import write_text
from clim_data.processes import Ranks
from torch import Tensor
from tqdm import tqdm


class RunningMean:
    """Means of device scalars since the last `reduce`.

    Sums stay on the device, so adding does not wait for it.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Add the scalars of one micro-batch."""
        for name, value in scalars.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._count += 1

    def reduce(self) -> dict[str, float]:
        """Return the means over all ranks, and start anew. Collective; waits for the device
        once."""
        if not self._count:
            return {}

        names = sorted(self._sums)
        means = torch.stack([self._sums[name].reshape(()) for name in names]) / self._count
        if not Ranks.of_group().is_single:
            dist.all_reduce(means)
            means /= Ranks.of_group().world_size
        self.load_state_dict({"sums": {}, "count": 0})
        return dict(zip(names, means.tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return sums and count, on the CPU."""
        sums = {name: value.cpu() for name, value in self._sums.items()}
        return {"sums": sums, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device | str = "cpu") -> None:
        """Continue from what `state_dict` returned, on `device`."""
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        self._count = state["count"]


class MetricLog:
    """Writes metrics of a run folder; on ranks other than 0 it does nothing.

    Args:
        folder: of the run.
        start: first step that will be written; later lines of an interrupted run are removed.
        total: steps of the run, for the bar.
        bar, tensorboard: whether to have them.
        active: False on other ranks.
    """

    def __init__(
        self, folder: Path, *, start: int, total: int, bar: bool, tensorboard: bool, active: bool
    ) -> None:
        self._active = active
        self.restart_clock(start)
        if not active:
            return

        self.path = Path(folder) / "metrics.jsonl"
        # A run that starts over evaluates step 0 again.
        _drop_lines_after(self.path, start or -1)
        self._file = os.fdopen(_open_to_append(self.path), "a")
        self._board = _board(Path(folder) / "tensorboard", start) if tensorboard else None
        self._bar = tqdm(
            total=total,
            initial=start,
            unit="step",
            dynamic_ncols=True,
            disable=not bar,
            smoothing=0.1,
        )

    def advance(self) -> None:
        """Move the bar by one step."""
        if self._active:
            self._bar.update()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line, {"step": step, ...values}; the bar shows `loss` and `samples_per_s`."""
        if not self._active:
            return

        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

        for name, value in values.items():
            if self._board is not None and isinstance(value, int | float):
                self._board.add_scalar(name, value, step)

        shown = {}
        for name in ("loss", "samples_per_s"):
            if name in values:
                shown[name] = f"{values[name]:.4g}"
        if shown:
            self._bar.set_postfix(shown)

    def flush(self) -> None:
        """Make sure that all lines so far are on the disk."""
        if self._active:
            os.fsync(self._file.fileno())

    def restart_clock(self, step: int) -> None:
        """Do not count the time since the last line (an evaluation, a checkpoint) for the speed."""
        self._last = (time.perf_counter(), step)

    def samples_per_second(self, step: int, samples_per_step: int) -> float:
        """Return the speed since the previous call (or the start)."""
        now = time.perf_counter()
        then, previous = self._last
        self._last = (now, step)
        return (step - previous) * samples_per_step / max(now - then, 1e-9)

    def close(self) -> None:
        """Close file, bar and board."""
        if self._active:
            self._file.close()
            self._bar.close()
            if self._board is not None:
                self._board.close()


def _open_to_append(path: Path) -> int:
    """Open a file, but not through a link: a run folder from elsewhere may hold one."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)


def _board(folder: Path, start: int) -> Any:
    # Imported here: it takes seconds, and the other ranks do not need it.
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=start + 1)


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
