"""Times on the device: medians of repeated calls after a warm-up, peak memory, and what the card
itself can do."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one call (median), the lowest and highest of the repeats, and the peak of
    allocated bytes."""

    seconds: float
    low: float
    high: float
    peak_bytes: int

    @property
    def peak_gib(self) -> float:
        return self.peak_bytes / 2**30


@dataclass(frozen=True)
class Ceiling:
    """What one large product and one large copy reach on this card: FLOP/s in bf16, bytes/s read
    and written."""

    flops: float
    bytes: float


def time_calls(
    call: Callable[[], Any],
    device: torch.device,
    *,
    repeats: int = 10,
    warmup: int = 3,
    limit: float = 10.0,
) -> Timing:
    """Time a call with CUDA events (on a CPU: a clock).

    Args:
        repeats: timed calls; fewer when `limit` seconds are used up, at least two.
        warmup: untimed calls before, which compile, fill caches and choose kernels.
        limit: seconds for all timed calls together.
    """
    for _ in range(warmup):
        call()
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    seconds: list[float] = []
    began = time.perf_counter()
    while len(seconds) < repeats and (len(seconds) < 2 or time.perf_counter() - began < limit):
        seconds.append(_with_events(call, device) if on_gpu else _with_clock(call))
    peak = torch.cuda.max_memory_allocated(device) if on_gpu else 0
    return Timing(statistics.median(seconds), min(seconds), max(seconds), peak)


def ceiling(device: torch.device, *, tiny: bool = False) -> Ceiling:
    """Measure the card: a bf16 product of 8192 x 8192 x 8192 on random data, and a copy of 4
    GiB."""
    side = 128 if tiny else 8192
    left, right = (torch.randn(side, side, device=device).to(torch.bfloat16) for _ in range(2))
    product = time_calls(lambda: left @ right, device, repeats=20)

    source = torch.empty(2**16 if tiny else 2**32, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = time_calls(lambda: target.copy_(source), device, repeats=10)

    return Ceiling(2 * side**3 / product.seconds, 2 * source.numel() / copy.seconds)


def _with_events(call: Callable[[], Any], device: torch.device) -> float:
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    call()
    last.record()
    torch.cuda.synchronize(device)
    return first.elapsed_time(last) / 1000


def _with_clock(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
