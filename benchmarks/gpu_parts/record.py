"""What a part reports: checks that pass or fail, and figures. Each is written to the part's json at
once."""

import json
import math
import os
import sysconfig
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def without_folders(text: str) -> str:
    """Shorten the paths in a traceback to what is the same on every machine."""
    folders = (
        sysconfig.get_path("purelib"),
        sysconfig.get_path("stdlib"),
        str(Path(__file__).parents[2]),
        tempfile.gettempdir(),
    )
    for folder in folders:
        text = text.replace(f"{folder}/", "")
    return text


@dataclass(frozen=True)
class Check:
    """One line that is right or wrong.

    Args:
        name: of what was checked, unique in its part.
        passed: whether it holds.
        error: the largest error that was seen, None where there is no number.
        tolerance: what the arithmetic allows, None where there is no number.
        detail: what a reader needs to know beside the numbers; the traceback of a check that
            raised.
    """

    name: str
    passed: bool
    error: float | None = None
    tolerance: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Figure:
    """One measured number with its unit; `share` is its fraction of the measured ceiling, None
    where none applies."""

    name: str
    value: float
    unit: str
    share: float | None = None
    detail: str = ""


@dataclass
class Part:
    """One run of one part; handed to the part's `run`.

    Args:
        name: of the part.
        device: "cuda", or "cpu" for a rehearsal.
        tiny: use the smallest sizes that still run every line; set by `--tiny`.
        seconds: what is left for this part when it begins.
        folder: for whatever the part wants to write (an empty folder of its own).
        path: json file that is rewritten after each line.
    """

    name: str
    device: torch.device
    tiny: bool
    seconds: float
    folder: Path
    path: Path
    checks: list[Check] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    failure: str | None = None
    done: bool = False
    elapsed: float = 0.0

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def check(self, name: str, passed: bool, detail: str = "") -> None:
        """Report a line without a number."""
        self._add(Check(name, bool(passed), detail=detail))

    def close_to(
        self, name: str, found: Tensor, wanted: Tensor, tolerance: float, detail: str = ""
    ) -> None:
        """Report the largest absolute difference of two tensors; it passes up to `tolerance`.

        Tensors of other shapes, and values that are not finite in one of them only, fail.
        """
        if found.shape != wanted.shape:
            shapes = f"shapes {tuple(found.shape)} and {tuple(wanted.shape)}"
            self._add(Check(name, False, math.inf, tolerance, f"{shapes} {detail}".strip()))
            return
        found, wanted = found.detach().double().cpu(), wanted.detach().double().cpu()
        difference = (found - wanted).abs()
        # Equal infinities agree, a NaN on both sides does not: nothing here may be a NaN.
        difference[found == wanted] = 0.0
        error = difference.max().item() if difference.numel() else 0.0
        self.within(name, error, tolerance, detail)

    def within(self, name: str, error: float, tolerance: float, detail: str = "") -> None:
        """Report an error that was computed elsewhere; it passes when it is finite and at most
        `tolerance`."""
        self._add(Check(name, error <= tolerance, error, tolerance, detail))

    def at_least(self, name: str, value: float, least: float, detail: str = "") -> None:
        """Report a number that has to reach `least`, such as a cosine; its error is how far it
        stays below 1."""
        self._add(Check(name, value >= least, 1 - value, 1 - least, detail))

    def figure(
        self, name: str, value: float, unit: str, *, share: float | None = None, detail: str = ""
    ) -> None:
        """Report a measured number."""
        self.figures.append(Figure(name, float(value), unit, share, detail))
        self.write()

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """Inside, an exception becomes a failed check with its traceback, and the part goes on."""
        try:
            yield
        except Exception:
            self._add(Check(name, False, detail=without_folders(traceback.format_exc(limit=-12))))
            if self.on_gpu:
                torch.cuda.empty_cache()

    def _add(self, check: Check) -> None:
        self.checks.append(check)
        self.write()
        word = "pass" if check.passed else "FAIL"
        error = (
            ""
            if check.error is None
            else f" error {check.error:.3g} (at most {check.tolerance:.3g})"
        )
        print(f"  {word} {self.name}: {check.name}{error}", flush=True)

    def write(self) -> None:
        """Write the json whole: a part that is killed leaves the lines that it had reported."""
        draft = self.path.with_suffix(f".{os.getpid()}.draft")
        draft.write_text(json.dumps(self.as_json(), indent=2) + "\n")
        draft.replace(self.path)

    def as_json(self) -> dict[str, Any]:
        return {
            "part": self.name,
            "done": self.done,
            "seconds": round(self.elapsed, 1),
            "failure": self.failure,
            "checks": [asdict(check) for check in self.checks],
            "figures": [asdict(figure) for figure in self.figures],
        }


Run = Callable[[Part], None]
