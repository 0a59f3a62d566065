"""Two ways of doing one thing, timed alternately in one process, and the peak memory of each in a
process of its own.

A benchmark is a list of `Comparison`s given to `run`. Each is printed and all are written to
results/NAME.json, from which table.py makes the table of the README. Nothing here judges: a speed
is measured, never asserted.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from machine import cores, machine
from memory import peak_memory, threads_and_quiet

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Candidate:
    """One of the two sides. `build()` makes everything ready and returns the function that is
    measured.

    `build` has to be picklable (a module's function, or a `functools.partial` of one): memory is
    measured in a fresh process, which builds the candidate again.
    """

    label: str
    build: Callable[[], Callable[[], Any]]


@dataclass(frozen=True)
class Comparison:
    """Ours against what one would otherwise write, on the same input.

    Args:
        name: of the comparison, unique in its benchmark.
        sizes: what was measured on, as text.
        ours, other: the sides; a ratio above 1 means that ours is faster.
        agree: function of both outputs that returns how far they are apart, and raises ValueError
            if that is too far.
        target: the ratio of time that is wanted, None if there is none.
        memory_target: the share of the other side's peak memory that is wanted, None if there is
            none.
        items: how many items one call handles, for items per second; their name is `item`.
    """

    name: str
    sizes: str
    ours: Candidate
    other: Candidate
    agree: Callable[[Any, Any], dict[str, float]]
    target: float | None = None
    memory_target: float | None = None
    items: int = 1
    item: str = "call"


@dataclass(frozen=True)
class Settings:
    """How to measure: `pairs` timed pairs after one untimed call of each side, `threads` of torch,
    on `device`."""

    pairs: int = 5
    threads: int = 2
    device: str = "cpu"
    memory: bool = True
    results: Path = field(default=RESULTS)


def argument_parser(doc: str, *, pairs: int, threads: int = 0) -> argparse.ArgumentParser:
    """The options that all benchmarks share; `threads` 0 means one for each core."""
    parser = argparse.ArgumentParser(
        description=doc.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--pairs", type=int, default=pairs, help="timed pairs; the median ratio is reported"
    )
    parser.add_argument("--threads", type=int, default=threads or cores(), help="threads of torch")
    parser.add_argument(
        "--device", default="cpu", help="cpu, cuda, cuda:1, ... (where the benchmark uses a model)"
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="folder of the JSON file that is written"
    )
    parser.add_argument(
        "--no-memory", action="store_true", help="skip the two extra processes that measure memory"
    )
    return parser


def settings_from(args: argparse.Namespace) -> Settings:
    return Settings(args.pairs, args.threads, args.device, not args.no_memory, args.results)


def run(
    name: str, comparisons: Sequence[Comparison], settings: Settings, *, notes: Sequence[str] = ()
) -> dict:
    """Measure all comparisons, print them, write `settings.results`/NAME.json with the notes, and
    return what was written."""
    with threads_and_quiet(settings.threads):
        record = {
            "benchmark": name,
            "command": " ".join(["python", f"benchmarks/{name}.py", *_own_arguments(name)]),
            "machine": machine(settings.device, settings.threads),
            "comparisons": [],
        }
        for comparison in comparisons:
            measured = compare(comparison, settings)
            record["comparisons"].append(measured)
            print(describe(measured), flush=True)
    if notes:
        record["notes"] = list(notes)
    settings.results.mkdir(parents=True, exist_ok=True)
    (settings.results / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    return record


def compare(comparison: Comparison, settings: Settings) -> dict:
    """Check that both sides agree, time them A B A B ..., measure the memory of each; all seconds
    are per call."""
    sides = (comparison.ours, comparison.other)
    calls = [side.build() for side in sides]
    # The first calls are not timed: they fill caches, and their results show that both do the same
    # thing.
    agreement = comparison.agree(*[call() for call in calls])
    seconds: tuple[list[float], list[float]] = ([], [])
    cpu_seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(settings.pairs):
        for call, wall, cpu in zip(calls, seconds, cpu_seconds, strict=True):
            elapsed, used = time_call(call, settings.device)
            wall.append(elapsed)
            cpu.append(used)
    for call in calls:
        getattr(call, "close", lambda: None)()
    del calls
    memory = [peak_memory(side, settings) if settings.memory else None for side in sides]
    ratios = [other / ours for ours, other in zip(*seconds, strict=True)]
    cpu_ratios = [other / ours for ours, other in zip(*cpu_seconds, strict=True)]
    return {
        "name": comparison.name,
        "sizes": comparison.sizes,
        "ours": _side(comparison, comparison.ours, seconds[0], memory[0]),
        "other": _side(comparison, comparison.other, seconds[1], memory[1]),
        "agreement": agreement,
        "ratio": round(statistics.median(ratios), 3),
        "ratio_low": round(min(ratios), 3),
        "ratio_high": round(max(ratios), 3),
        "cpu_ratio": round(statistics.median(cpu_ratios), 3),
        "pairs": settings.pairs,
        "target": comparison.target,
        "memory_ratio": _share(memory, "call_mib"),
        "process_memory_ratio": _share(memory, "process_mib"),
        "memory_target": comparison.memory_target,
    }


def time_call(call: Callable[[], Any], device: str) -> tuple[float, float]:
    """(wall-clock seconds, CPU seconds of all threads) of one call, with the device's queue emptied
    before and after.

    CPU seconds hardly depend on what else the machine does meanwhile; they are printed beside the
    ratio.
    """
    gc.collect()
    _synchronize(device)
    start, cpu_start = time.perf_counter(), time.process_time()
    call()
    _synchronize(device)
    return time.perf_counter() - start, time.process_time() - cpu_start


def describe(measured: dict) -> str:
    """The comparison in words: what, on what, the ratio, the memory."""
    ours, other = measured["ours"], measured["other"]
    target = "" if measured["target"] is None else f", target {measured['target']:g}"
    lines = [
        f"{measured['name']}: {measured['sizes']}",
        f"  {ours['label']}: {_seconds(ours)}",
        f"  {other['label']}: {_seconds(other)}",
        f"  {measured['ratio']:.2f} times as fast ({measured['ratio_low']:.2f} to "
        f"{measured['ratio_high']:.2f} "
        f"in {measured['pairs']} pairs{target}); {measured['cpu_ratio']:.2f} by CPU time",
    ]
    if measured["memory_ratio"] is not None:
        wanted = (
            "" if measured["memory_target"] is None else f", target {measured['memory_target']:.2f}"
        )
        lines.append(
            f"  peak memory of the call {ours['call_mib']:.0f} against {other['call_mib']:.0f} "
            "MiB: "
            f"{measured['memory_ratio']:.2f} of it{wanted}; of the process "
            f"{ours['process_mib']:.0f} against "
            f"{other['process_mib']:.0f} MiB: {measured['process_memory_ratio']:.2f} of it"
        )
    agreement = ", ".join(f"{key} {value:.3g}" for key, value in measured["agreement"].items())
    return "\n".join([*lines, f"  outputs: {agreement}"])


def largest_difference(
    ours: torch.Tensor, other: torch.Tensor, tolerance: float
) -> dict[str, float]:
    """How far two tensors are apart. Raises ValueError for different shapes or more than
    `tolerance`."""
    if ours.shape != other.shape:
        raise ValueError(
            f"outputs have shapes {tuple(ours.shape)} and {tuple(other.shape)}: not the same work"
        )
    difference = (ours.double() - other.double()).abs().max().item() if ours.numel() else 0.0
    if not difference <= tolerance:
        raise ValueError(
            f"outputs differ by {difference:.3g}, more than {tolerance:g}: not the same work"
        )
    return {"largest difference": difference}


def _side(
    comparison: Comparison, candidate: Candidate, seconds: list[float], memory: dict | None
) -> dict:
    median = statistics.median(seconds)
    return {
        "label": candidate.label,
        "seconds": [round(s, 5) for s in seconds],
        "median_s": round(median, 5),
        "items_per_s": round(comparison.items / median, 2),
        "item": comparison.item,
        "call_mib": memory and memory["call_mib"],
        "process_mib": memory and memory["process_mib"],
    }


def _share(memory: list[dict | None], key: str) -> float | None:
    """Ours over other; None when it was not measured or the other side needed nothing."""
    ours, other = memory
    return round(ours[key] / other[key], 3) if ours and other and other[key] > 0 else None


def _seconds(side: dict) -> str:
    return f"{side['median_s'] * 1000:.1f} ms ({side['items_per_s']:.4g} {side['item']}s/s)"


def _own_arguments(name: str) -> list[str]:
    """Arguments of the command line, if this process is that benchmark."""
    return sys.argv[1:] if Path(sys.argv[0]).stem == name else []


def _synchronize(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
