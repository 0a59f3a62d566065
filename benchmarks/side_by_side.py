"""Two ways of doing one thing, timed alternately in one process, and the peak memory of each in a
process of its own.

A benchmark is a list of `Comparison`s given to `run`. Each is printed and all are written to
results/NAME.json, from which table.py makes the table of the README. Nothing here judges: a speed
is measured, never asserted.
"""

import argparse
import gc
import json
import logging
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
VERSIONS = (
    "torch",
    "torchvision",
    "pillow",
    "open_clip_torch",
    "timm",
    "deepspeed",
    "transformers",
)
MIB = 2**20


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


def run(name: str, comparisons: Sequence[Comparison], settings: Settings) -> dict:
    """Measure all comparisons, print them, write `settings.results`/NAME.json, and return what was
    written."""
    with _threads_and_quiet(settings.threads):
        record = {
            "benchmark": name,
            "command": " ".join(["python", f"benchmarks/{name}.py", *_own_arguments(name)]),
            "machine": machine(settings),
            "comparisons": [],
        }
        for comparison in comparisons:
            measured = compare(comparison, settings)
            record["comparisons"].append(measured)
            print(describe(measured), flush=True)
    settings.results.mkdir(parents=True, exist_ok=True)
    (settings.results / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    return record


@contextmanager
def _threads_and_quiet(threads: int) -> Iterator[None]:
    """So many threads of torch, and no warnings about random weights, which are meant."""
    before, log_level = torch.get_num_threads(), logging.getLogger().level
    torch.set_num_threads(threads)
    logging.getLogger().setLevel(logging.ERROR)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        logging.getLogger().setLevel(log_level)


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


def peak_memory(candidate: Candidate, settings: Settings) -> dict[str, float]:
    """Peak memory of the first call in a fresh process.

    Returns:
        "call_mib": peak above what was in use just before the call. "process_mib": peak of the
            whole process during
        the call, with Python, libraries and weights (on a GPU: of torch's allocator, with weights).
        Both in MiB.
    """
    context = _process_context()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure_memory, args=(candidate, settings, sender))
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        raise RuntimeError(
            f"the process that measures {candidate.label!r} died: see its message above"
        ) from None
    finally:
        process.join()
    return result


def _measure_memory(candidate: Candidate, settings: Settings, sender) -> None:
    with _threads_and_quiet(settings.threads):
        sender.send(_peak_of_first_call(candidate.build(), settings.device))
    sender.close()


def _peak_of_first_call(call: Callable[[], Any], device: str) -> dict[str, float]:
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
    else:
        before = _reset_peak_resident()
        call()
        peak = _peak_resident()
    # Linux adds up the resident pages of threads late, so a call that takes no memory may seem to
    # give some back.
    used = max(0, peak - before)
    return {"call_mib": round(used / MIB, 1), "process_mib": round(peak / MIB, 1)}


def _reset_peak_resident() -> int:
    """Forget the peak that building the candidate left behind; returns the bytes that are resident
    now."""
    with suppress(
        OSError
    ):  # Linux only; elsewhere a peak that is lower than that of building cannot be seen
        Path("/proc/self/clear_refs").write_text("5")
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return _peak_resident()


def _peak_resident() -> int:
    """Largest number of resident bytes of this process since the last reset."""
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _process_context():
    """Processes that begin with the imports done and nothing else: no arrays, no threads of this
    process."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    beside = {path.stem for path in Path(__file__).parent.glob("*.py")}
    context.set_forkserver_preload(["__main__", *sorted(beside & sys.modules.keys())])
    return context


def machine(settings: Settings) -> dict:
    """What it was measured on, in general words: no host name, no paths."""
    on_gpu = torch.device(settings.device).type == "cuda"
    return {
        "processor": processor(),
        "cores": cores(),
        "threads": settings.threads,
        "device": torch.cuda.get_device_name(settings.device) if on_gpu else "cpu",
        "python": platform.python_version(),
        "packages": package_versions(),
        "load_at_start": round(os.getloadavg()[0], 1),
    }


def cores() -> int:
    return os.cpu_count() or 1


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


def package_versions() -> dict[str, str]:
    """Return the version of each library that decides a speed, where it is installed."""
    found = {}
    for package in VERSIONS:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def processor() -> str:
    """Return the name of the processor's model."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _synchronize(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
