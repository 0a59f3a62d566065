"""Options that a run takes from the machine and the data, unless the user gave them.

A recipe is written for the GPUs and the data set of a paper. There nothing changes; on a CPU, or
with a few images, its options would cost hours or never end their warm-up. Each function returns a
configuration, which is written to `config.json`: a resumed run chooses nothing anew.
"""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from clim_data.command_line import usable_cpus

from clim_train.config import TrainConfig
from clim_train.methods.table import find_method
from clim_train.options.run_options import RunOptions

Config = TypeVar("Config", bound=RunOptions)

CPU_PX = 256
"""Side of the largest images on a CPU: a sixteenth of the arithmetic of the recipes' 1024 px."""

SMALL_GPU_GB = 14.0
"""Below this much memory, blocks are computed again in the backward pass."""

WARMUP_SHARE = 0.1
"""Length of the warm-up where the recipe's is longer than the run, as a fraction of the run."""

LINES = 20
"""Lines of metrics that even the shortest run writes."""


@dataclass(frozen=True)
class Machine:
    """The properties of a machine that decide how a run computes.

    Args:
        gpu: name of the GPU of this process, None for the CPU.
        gpu_gb: its memory.
        has_bf16: whether it computes in bf16.
        cpus: CPUs that this process may use.
        threads: threads with which torch computes.
    """

    gpu: str | None = None
    gpu_gb: float = 0.0
    has_bf16: bool = True
    cpus: int = 1
    threads: int = 1

    @classmethod
    def of_process(cls, device: Any) -> "Machine":
        """Look at the machine.

        Args:
            device: the torch.device on which this process trains.
        """
        import torch

        threads = torch.get_num_threads()
        if device.type != "cuda":
            return cls(cpus=usable_cpus(), threads=threads)

        facts = torch.cuda.get_device_properties(device)
        return cls(
            gpu=facts.name,
            gpu_gb=facts.total_memory / 1e9,
            has_bf16=torch.cuda.is_bf16_supported(including_emulation=False),
            cpus=usable_cpus(),
            threads=threads,
        )


def fit_machine(config: TrainConfig, machine: Machine, given: frozenset[str]) -> TrainConfig:
    """Return the configuration for a machine: precision, side of the images, workers, memory.

    On a CPU: fp32, which is faster there than bf16, images of at most `CPU_PX`, one worker. On a
    GPU: fp32 where it has no bf16, and checkpointed blocks where it has little memory.

    Args:
        given: options that the user gave, see `given_options`; they stay.
    """
    on_cpu = machine.gpu is None
    engine = config.engine
    without_bf16 = engine.precision in ("amp_bf16", "bf16") and (on_cpu or not machine.has_bf16)
    if without_bf16 and "engine.precision" not in given:
        engine = replace(engine, precision="fp32")

    model = config.model
    if not on_cpu and machine.gpu_gb < SMALL_GPU_GB and "model.grad-checkpointing" not in given:
        model = replace(model, grad_checkpointing=True)

    config = replace(config, model=model, engine=engine)
    if on_cpu:
        config = _with_small_images(config, given)
    return fit_workers(config, machine, given)


def fit_workers(config: Config, machine: Machine, given: frozenset[str]) -> Config:
    """Return the configuration with no more workers than there are CPUs; one where the CPU also
    trains. Batches do not depend on their number."""
    data: Any = config.data
    most = 1 if machine.gpu is None else machine.cpus
    if "data.workers" in given or data.workers <= most:
        return config
    changed: Any = replace(config, data=replace(data, workers=most))
    return changed


def fit_data(config: TrainConfig, images: int, ranks: int, given: frozenset[str]) -> TrainConfig:
    """Return the configuration for data with fewer images than a step of the recipe.

    Args:
        images: of an epoch.
        ranks: processes that share a step.
    """
    data, engine = config.data, config.engine
    share = max(1, images // ranks)
    if data.batch_size > share and "data.batch-size" not in given:
        data = replace(data, batch_size=share)

    batches = max(1, images // (data.batch_size * ranks))
    if engine.accumulation > batches and "engine.accumulation" not in given:
        engine = replace(engine, accumulation=batches)
    return replace(config, data=data, engine=engine)


def fit_length(config: Config, steps: int, given: frozenset[str]) -> Config:
    """Return the configuration for a run of some steps: its warm-up ends, and metrics are written
    at least `LINES` times.

    A length of the warm-up that the user gave keeps its meaning.
    """
    schedule, run = config.schedule, config.run
    own = {"schedule.warmup-steps", "schedule.warmup-share"}
    if schedule.warmup_share is None and schedule.warmup_steps >= steps and not own & given:
        schedule = replace(schedule, warmup_share=WARMUP_SHARE)

    every = max(1, steps // LINES)
    if run.log_every > every and "run.log-every" not in given:
        run = replace(run, log_every=every)
    changed: Any = replace(config, schedule=schedule, run=run)
    return changed


def _with_small_images(config: TrainConfig, given: frozenset[str]) -> TrainConfig:
    kind = find_method(config.task.name).data
    side = kind.largest_px(config.data)
    if kind.with_px is None or side <= CPU_PX or given & set(kind.px_options):
        return config

    # By halves: 896 px become 224 px, which patches of 14 px divide, too.
    small = side
    while small > CPU_PX:
        small //= 2
    evaluation = config.evaluation
    if "evaluation.image-px" not in given:
        evaluation = replace(evaluation, image_px=small)
    return replace(config, data=kind.with_px(config.data, small), evaluation=evaluation)
