"""Costs of an arm of a comparison: seconds of its steps, and its peak memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from clim_train.config import TrainConfig
from clim_train.run.metrics import read_metrics

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
GIB = 2**30


class PeakMemory:
    """Peak memory inside `measured`: `gib`, None where it cannot be known.

    With a GPU: tensors on it. Without: the whole process in main memory (Linux), libraries and data
    included.
    """

    def __init__(self) -> None:
        self.gib: float | None = None

    @contextmanager
    def measured(self) -> Iterator["PeakMemory"]:
        """Set `gib` to the peak inside the context; several contexts leave the largest of their
        peaks."""
        known = _start()
        try:
            yield self
        finally:
            if known and (peak := _peak()) is not None:
                self.gib = max(peak, self.gib or 0.0)


def _start() -> bool:
    """Reset the peak; return False where the system offers no way to do it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        _RESET.write_text("5")  # proc(5): resets the peak resident set size
    except OSError:
        return False
    return True


def _peak() -> float | None:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / GIB
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / GIB
    return None


def step_seconds(config: TrainConfig) -> tuple[float, int]:
    """Return (seconds, steps) of all optimizer steps of a finished run, waiting for data included.

    Read from its metrics, so that a run that was interrupted counts whole; evaluations and
    checkpoints do not count. One process.
    """
    seconds, previous = 0.0, 0
    for line in read_metrics(config.run.folder):
        if "step_s" in line:
            seconds += (line["step"] - previous) * line["step_s"]
            previous = line["step"]
    return seconds, previous
