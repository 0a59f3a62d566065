"""Peak memory of a call, in a fresh process."""

import gc
import logging
import multiprocessing
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from side_by_side import Candidate, Settings

MIB = 2**20


@contextmanager
def threads_and_quiet(threads: int) -> Iterator[None]:
    """Set the number of torch's threads, and leave out warnings about random weights, which are
    meant."""
    before, log_level = torch.get_num_threads(), logging.getLogger().level
    torch.set_num_threads(threads)
    logging.getLogger().setLevel(logging.ERROR)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        logging.getLogger().setLevel(log_level)


def peak_memory(candidate: "Candidate", settings: "Settings") -> dict[str, float]:
    """Peak memory of the first call in a fresh process.

    Returns:
        "call_mib": peak above what was in use just before the call. "process_mib": peak of the
        whole process during the call, with Python, libraries and weights (on a GPU: of torch's
        allocator, with weights). Both in MiB.
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


def _measure_memory(candidate: "Candidate", settings: "Settings", sender) -> None:
    with threads_and_quiet(settings.threads):
        sender.send(peak_of_first_call(candidate.build(), settings.device))
    sender.close()


def peak_of_first_call(call: Callable[[], Any], device: str) -> dict[str, float]:
    """Return the figures of `peak_memory` for a call in this process."""
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
    # Linux only; elsewhere a peak that is lower than that of building cannot be seen.
    with suppress(OSError):
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
