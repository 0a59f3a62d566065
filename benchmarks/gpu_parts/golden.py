"""Golden cases on the device in float32: the repository's own tests that are marked `device`, run
in this process.

`CLIM_DEVICE` tells the tests where to put models and inputs (tests/helpers/device.py). What they
compare by `torch.testing.assert_close` and `pytest.approx` is noted, so that the report has the
largest error of each test beside its tolerance.
"""

import builtins
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gpu_parts.exact import exact_float32
from gpu_parts.record import Part

TESTS = Path(__file__).resolve().parents[2] / "tests"

# What would hurt most users comes first; within a folder, the order of its files.
FOLDERS = ("clim_models", "clim_train", "flmm")

# The cheapest tests of each kind, for a rehearsal.
CHEAPEST = (
    "clim_models/losses/test_contrastive.py",
    "clim_models/losses/test_masks.py",
    "clim_models/test_pooling.py",
    "clim_models/test_region_model.py::test_golden_resnet_features",
    "clim_train/methods/test_clim.py::test_golden_loss_of_given_features",
    "flmm/test_adapters_golden.py::test_golden_merge_max",
)


@dataclass(eq=False)
class Lines:
    """A plugin of pytest that makes one line of the cases of each test function.

    Args:
        part: where the lines go.
        largest: (error, tolerance) of the current test, at the number that is nearest to its
            tolerance.
        cases: what the cases of the current function came to: (case, error, tolerance, failure).
    """

    part: Part
    largest: tuple[float, float] | None = None
    function: str = ""
    cases: list[tuple[str, tuple[float, float] | None, str]] = field(default_factory=list)

    def note(self, found: Any, wanted: Any, atol: float, rtol: float) -> None:
        """Note how far two values lie apart; atol + rtol |wanted| is allowed."""
        if not (isinstance(found, Tensor | float) and isinstance(wanted, Tensor | float)):
            return
        found, wanted = (torch.as_tensor(x).detach().double().cpu() for x in (found, wanted))
        if found.shape != wanted.shape or not found.numel():
            return

        errors, allowed = (found - wanted).abs(), atol + rtol * wanted.abs()
        # Where nothing may differ, any difference is beyond all bounds.
        used = torch.where(errors == 0, 0.0, errors / allowed).nan_to_num(nan=torch.inf).flatten()
        worst = int(used.argmax())
        pair = errors.flatten()[worst].item(), allowed.flatten()[worst].item()
        if self.largest is None or pair[0] * self.largest[1] > self.largest[0] * pair[1]:
            self.largest = pair

    def pytest_runtest_setup(self) -> None:
        self.largest = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        path, _, name = report.nodeid.partition("::")
        name, _, case = name.partition("[")  # test_name[case]
        subject = Path(path).stem.removeprefix("test_")
        function = f"{subject}: {name.removeprefix('test_golden_').replace('_', ' ')}"
        if function != self.function:
            self.flush()
            self.function = function
        self.cases.append(
            (case.rstrip("]"), self.largest, "" if report.passed else str(report.longrepr))
        )

    def pytest_sessionfinish(self) -> None:
        self.flush()

    def flush(self) -> None:
        """Report the function whose cases are complete: those that failed one by one, the others
        together."""
        with redirect_stdout(sys.__stdout__):
            for case, _, failure in self.cases:
                if failure:
                    self.part.check(f"{self.function} {case}".strip(), False, failure)
            passed = [(case, pair) for case, pair, failure in self.cases if not failure]
            pairs = [pair for _, pair in passed if pair is not None]
            title = f"{self.function}, {len(passed)} of {len(self.cases)} cases"
            detail = ", ".join(f"{case} {pair[0]:.1e}" for case, pair in passed if case and pair)
            if pairs:
                error, tolerance = max(pairs, key=lambda pair: pair[0] / max(pair[1], 1e-300))
                self.part.within(title, error, tolerance, detail)
            elif passed:
                self.part.check(title, True)
        self.cases = []


def run(part: Part) -> None:
    lines = Lines(part)
    chosen = CHEAPEST if part.tiny else FOLDERS
    arguments = [str(TESTS / name) for name in chosen]
    arguments += [
        "-m",
        "device",
        "-c",
        str(TESTS.parent / "pyproject.toml"),
        "--rootdir",
        str(TESTS.parent),
    ]
    # Other versions than those that the tests are run with every day may warn; that is no fault of
    # the device.
    arguments += ["-W", "ignore", "--capture=no", "-p", "no:cacheprovider"]

    os.environ["CLIM_DEVICE"] = str(part.device)
    if part.tiny:
        os.environ["CLIM_TEST_THREADS"] = (
            "1"  # two threads only wait for each other on a busy machine
        )
    log = (part.folder / "pytest.txt").open("w")
    with exact_float32(), noted_comparisons(lines), log, redirect_stdout(log):
        status = pytest.main(arguments, plugins=[lines])

    # 0: all passed, 1: some failed, and they have lines of their own. Anything else: pytest could
    # not run them.
    part.check(
        "pytest ran the golden tests",
        status in (0, 1),
        f"exit status {int(status)}; see pytest.txt",
    )


class NotedApprox:
    """What `pytest.approx` returns for a number, noting what it is compared with."""

    def __init__(
        self, lines: Lines, wanted: float, rel: float | None, abs: float | None, inner: Any
    ):
        self.lines, self.wanted, self.inner = lines, wanted, inner
        # pytest's rule: `rel` is 1e-6 unless `abs` stands alone, and the larger of the two holds.
        relative = 0.0 if rel is None and abs is not None else (1e-6 if rel is None else rel)
        self.allowed = max(relative * builtins.abs(wanted), 1e-12 if abs is None else abs)

    def __eq__(self, found: object) -> bool:
        self.lines.note(found, float(self.wanted), self.allowed, 0.0)
        return self.inner == found

    def __repr__(self) -> str:
        return repr(self.inner)

    __hash__ = None


@contextmanager
def noted_comparisons(lines: Lines) -> Iterator[None]:
    """Let `torch.testing.assert_close` and `pytest.approx` note what they compare."""
    close, approx = torch.testing.assert_close, pytest.approx

    def noting_close(actual: Any, expected: Any, *args: Any, **options: Any) -> None:
        # Without tolerances assert_close takes these for float32.
        atol, rtol = (
            options.get(name, usual) for name, usual in (("atol", 1e-5), ("rtol", 1.3e-6))
        )
        lines.note(actual, expected, atol, rtol)
        close(actual, expected, *args, **options)

    def noting_approx(
        expected: Any, rel: float | None = None, abs: float | None = None, **options: Any
    ) -> Any:
        inner = approx(expected, rel=rel, abs=abs, **options)
        return (
            NotedApprox(lines, expected, rel, abs, inner)
            if isinstance(expected, float | int)
            else inner
        )

    torch.testing.assert_close, pytest.approx = noting_close, noting_approx
    try:
        yield
    finally:
        torch.testing.assert_close, pytest.approx = close, approx
