"""Progress of a run: a live bar in a terminal, elsewhere a line for each 5 %."""

import sys
import time
from collections.abc import Mapping
from typing import Protocol

from tqdm import tqdm

SHOWN = ("loss", "samples_per_s")
LINES = 20


class Progress(Protocol):
    """Shows the steps of a run."""

    def advance(self) -> None:
        """Count a step."""
        ...

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Show the newest metrics."""
        ...

    def say(self, line: str) -> None:
        """Print a line."""
        ...

    def close(self) -> None:
        """Stop showing."""
        ...


def open_progress(start: int, total: int, *, enabled: bool) -> Progress:
    """Return the bar, or the lines, of a run that begins after step `start`."""
    if not enabled:
        return Silent()
    return Bar(start, total) if sys.stderr.isatty() else Lines(start, total)


class Silent:
    """Shows nothing."""

    def advance(self) -> None:
        """Count no step."""

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Show nothing."""

    def say(self, line: str) -> None:
        """Print nothing."""

    def close(self) -> None:
        """Do nothing."""


class Bar:
    """A live bar, which appears with the first step."""

    def __init__(self, start: int, total: int) -> None:
        self._start, self._total = start, total
        self._bar: tqdm | None = None

    def advance(self) -> None:
        """Move the bar by one step."""
        self._open().update()

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Show `loss` and `samples_per_s` behind the bar."""
        shown = {name: f"{values[name]:.4g}" for name in SHOWN if name in values}
        if shown:
            self._open().set_postfix(shown)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._open().write(line, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def _open(self) -> tqdm:
        # Not earlier: lines that are printed before the first step would break an open bar.
        if self._bar is None:
            self._bar = tqdm(
                total=self._total,
                initial=self._start,
                unit="step",
                dynamic_ncols=True,
                smoothing=0.1,
            )
        return self._bar


class Lines:
    """A line after each twentieth of the run, for files and pipes."""

    def __init__(self, start: int, total: int) -> None:
        self._start, self._total = start, total
        self._began = time.perf_counter()
        self._shown = start * LINES // total

    def advance(self) -> None:
        """Count no step: lines come with metrics."""

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Print a line where another twentieth of the run is done."""
        if step == self._start + 1:  # the first step has a line of its own
            return
        part = step * LINES // self._total
        if part <= self._shown or "loss" not in values:
            return
        self._shown = part

        left = (time.perf_counter() - self._began) / (step - self._start) * (self._total - step)
        speed = f", {values['samples_per_s']:.4g} samples/s" if "samples_per_s" in values else ""
        end = f", {duration(left)} left" if step < self._total else ""
        self.say(f"step {step:,} of {self._total:,}: loss {values['loss']:.4g}{speed}{end}")

    def say(self, line: str) -> None:
        """Print a line."""
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Do nothing: lines stay."""


def duration(seconds: float) -> str:
    """Return a time in the unit that people use for it: "40 s", "7 min", "26 h", "3 days"."""
    for unit, length, limit in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 72)):
        if seconds < limit * length:
            value = seconds / length
            return f"{value:.2g} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"
