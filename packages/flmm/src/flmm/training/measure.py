"""Time and memory of a training of the heads, measured on its first steps.

The frozen models do most of the work, and its amount depends on the texts and images of the data.
So real steps run, with the run's own models and data. No file is written.
"""

import resource
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from clim_data.processes import Ranks
from clim_data.streams import global_steps
from clim_train import learning_rate, total_steps
from clim_train.engine import Engine, start_distributed
from clim_train.options import choose_device

from flmm.samples import GroundingBatch
from flmm.training.build import build_parts
from flmm.training.config import FeatureCacheConfig, GroundingConfig
from flmm.training.data import GroundingLoader

STEPS = 5
"""Default number of measured steps."""


@dataclass(frozen=True)
class MeasuredSteps:
    """The cost of measured steps on one device, and the estimate for the whole run.

    device: as torch names it. trained, frozen: parameters. samples: of the data, per epoch. steps:
    of the run on `gpus` GPUs. step_seconds: median of an optimizer step. waiting_seconds: the
    median part of it in which the step waited for data. peak_bytes: most memory of the GPU, or of
    the whole process on a CPU.
    """

    device: str
    trained: int
    frozen: int
    samples: int
    gpus: int
    steps: int
    step_seconds: float
    waiting_seconds: float
    peak_bytes: int

    @property
    def hours(self) -> float:
        """Length of the run, without checkpoints and the exchange between GPUs."""
        return self.steps * self.step_seconds / 3600


def measure_steps(config: GroundingConfig, *, gpus: int, steps: int = STEPS) -> MeasuredSteps:
    """Take the first steps of a run in this process, and measure them.

    One step before them is not counted: it allocates memory and chooses kernels. No features are
    read from or written to a cache, so every step runs the frozen models.

    Args:
        gpus: GPUs that will share the run, `config.data.batch_size` images each per micro-batch.
        steps: optimizer steps that are measured.

    Raises:
        ValueError: `gpus` or `steps` below 1, several processes, or as `build_trainer`.
        FileNotFoundError: as `build_trainer`.
    """
    if gpus < 1 or steps < 1:
        raise ValueError(f"gpus={gpus} and steps={steps} are not possible: use at least 1")
    if Ranks.of_launcher().world_size > 1:
        raise ValueError("steps are measured in one process: start the command without a launcher")

    # Before loading, which can take minutes.
    device = choose_device(config.engine)
    start_distributed(device, timeout_minutes=config.engine.timeout_minutes)
    config = replace(
        config, cache=FeatureCacheConfig(), engine=config.engine.for_ranks(Ranks.of_group()[1])
    )
    parts = build_parts(config)
    samples = sum(len(data) for data in parts.sources.values())
    accumulation = config.engine.accumulation
    batches = len(global_steps(samples, gpus * config.data.batch_size, gpus))
    total = total_steps(batches, accumulation, config.schedule)

    engine = Engine(parts.task, config, device=device)
    try:
        step = _StepClock(engine, parts.loader, device, accumulation)
        lr = learning_rate(0, total, config.optim, config.schedule)
        step.take(lr)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        times = [step.take(lr) for _ in range(steps)]
        peak = _peak_bytes(device)
    finally:
        engine.discard()

    seconds, waiting = zip(*times, strict=True)
    trained = sum(p.numel() for p in parts.task.trainable_parameters().values())
    return MeasuredSteps(
        device=_name_of(device),
        trained=trained,
        frozen=sum(p.numel() for p in parts.model.parameters()) - trained,
        samples=samples,
        gpus=gpus,
        steps=total,
        step_seconds=statistics.median(seconds),
        waiting_seconds=statistics.median(waiting),
        peak_bytes=peak,
    )


class _StepClock:
    """A timer of optimizer steps."""

    def __init__(
        self, engine: Engine, loader: GroundingLoader, device: torch.device, accumulation: int
    ):
        self.engine = engine
        self.device = device
        self.accumulation = accumulation
        self._batches = _endless(loader)

    def take(self, lr: float) -> tuple[float, float]:
        """Take one step; return its seconds, and those in which it waited for data."""
        begin = time.perf_counter()
        waiting = 0.0
        for _ in range(self.accumulation):
            asked = time.perf_counter()
            batch = next(self._batches)
            waiting += time.perf_counter() - asked
            self.engine.forward_backward(batch.to(self.device))
            self.engine.step(lr)

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - begin, waiting


def _endless(loader: GroundingLoader) -> Iterator[GroundingBatch]:
    while True:
        yield from loader


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kilobytes on Linux


def _name_of(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} threads of a CPU"


def measured_text(name: str, config: GroundingConfig, found: MeasuredSteps) -> str:
    """Return the measurement, and the estimate for the run, as lines of text."""
    data, engine = config.data, config.engine
    images = data.batch_size * engine.accumulation
    lines = [
        f"{name}: {config.model.lmm} and {config.model.sam}, {found.trained / 1e6:.1f} M "
        f"parameters train, {found.frozen / 1e6:.1f} M are frozen",
        f"one process on {found.device}, {images} images per step: {found.step_seconds:.2f} s per "
        f"step, {found.waiting_seconds:.2f} s of them waiting for data",
        f"memory: {found.peak_bytes / 1e9:.1f} GB at most",
        f"{found.samples:,} samples per epoch on {found.gpus} such devices: {found.steps:,} steps, "
        f"{found.hours:.1f} hours, checkpoints and the exchange between devices not counted",
    ]
    if config.cache.folder is not None:
        lines.append("epochs after the first are shorter: cache.folder has the frozen features")
    return "\n".join(lines)
