"""Memory and time of a run, before a GPU is rented: `clim-train estimate RECIPE`.

Activations and arithmetic come from a trace of the real step (`step_cost`); what ZeRO stores
follows from the number of weights. Only one thing is an assumption, and an option: the fraction of
a GPU's peak speed that is reached.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from clim_data.streams import global_steps
from clim_models import no_weights_yet
from torch import Tensor, nn
from tqdm import tqdm

from clim_train.build import build_model, build_task, native_px
from clim_train.config import TrainConfig
from clim_train.engine.engine import BUCKET_ELEMENTS
from clim_train.methods.table import find_method
from clim_train.options.device import WEIGHT_DTYPES, autocast_dtype
from clim_train.options.run_options import RunOptions
from clim_train.options.sections import EngineConfig
from clim_train.step_cost import StepCost, step_cost
from clim_train.task import Task

PEAK_TFLOPS = {
    "V100": 125,
    "T4": 65,
    "A10": 125,
    "A100": 312,
    "L4": 121,
    "L40S": 362,
    "RTX3060": 51,
    "RTX3090": 71,
    "RTX4090": 165,
    "H100": 989,
    "H200": 989,
}
"""Dense 16-bit tensor arithmetic with 32-bit sums, from the makers' data sheets."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU, without the CUDA context (about half a GB) and fragmentation (a few
    percent)."""

    frozen_weights: int
    """Weights of the model that do not train, and of a teacher."""
    trained_weights: int
    gradients: int
    optimizer_states: int
    """The optimizer's moments (two of AdamW, one of SGD with momentum), and the float32 copy that
    it updates, where there is one."""
    step: int
    """Peak of a micro-batch in addition to these: activations, and copies of weights in 16 bits."""
    buckets: int
    """Buffers in which gradients travel between GPUs."""

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class Estimate:
    """Memory and time of one run on `gpus` GPUs.

    memory: of one GPU. host_bytes: of host memory for one GPU. flops: of one optimizer step on one
    GPU. step_seconds, steps, hours: of the run. steps and hours are None where the number of images
    is not known.
    """

    gpus: int
    trained: int
    frozen: int
    memory: Memory
    host_bytes: int
    flops: int
    step_seconds: float
    steps: int | None

    @property
    def hours(self) -> float | None:
        """Length of the run, without evaluation and checkpoints."""
        return None if self.steps is None else self.steps * self.step_seconds / 3600


def estimate(
    config: TrainConfig,
    *,
    gpus: int,
    tflops: float,
    images: int | None = None,
    progress: bool = False,
) -> Estimate:
    """Return memory and time of a run of `config`.

    The weights are random ones on the CPU; `config.model.pretrained` has no effect, only shapes
    count. The figures are those of a run whose blocks are not compiled.

    Args:
        gpus: GPUs that share the run, `config.data.batch_size` images each per micro-batch.
        tflops: arithmetic that one GPU sustains, 1e12 floating-point operations per second.
        images: of the data set; not needed where the schedule says its steps.
        progress: show a live line on stderr.
    """
    engine = replace(config.engine.for_ranks(gpus), compile=False)
    config = replace(config, model=replace(config.model, pretrained=None), engine=engine)

    title = f"building {config.model.name}"
    with tqdm(desc=title, unit=" operations", disable=not progress, leave=False) as bar:
        # A tower as it is built, in the precision of the run.
        with no_weights_yet():
            model = build_model(config).to(dtype=WEIGHT_DTYPES[engine.precision])
        task = build_task(config, model, class_names=None)

        bar.set_description_str("tracing a step")
        found = estimate_task(
            task,
            lambda: example_batch(config),
            config,
            gpus=gpus,
            tflops=tflops,
            images=images,
            advance=bar.update,
        )

    # Fake tensors of the trace hang in reference cycles.
    del model, task
    gc.collect()
    return found


def estimate_task(
    task: Task,
    make_batch: Callable[[], Any],
    config: RunOptions,
    *,
    gpus: int,
    tflops: float,
    images: int | None = None,
    advance: Callable[[], object] | None = None,
) -> Estimate:
    """Return memory and time of a run that trains any task; see `estimate`.

    Args:
        task: in the precision of the run. Use it for nothing else afterwards (see `step_cost`).
        make_batch: makes a batch of the shapes that training will have.
        advance: called after each operation of the traced step.
    """
    engine = config.engine.for_ranks(gpus)
    trained = list(task.trainable_parameters().values())
    parameters, buffers = tensors_of(task)
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]

    cost = step_cost(
        task.loss,
        make_batch,
        trained,
        [*parameters, *buffers],
        autocast=autocast_dtype(engine.precision),
        advance=advance,
    )
    weights = sum(parameter.numel() for parameter in trained)
    frozen_bytes = sum(parameter.nbytes for parameter in frozen)
    moments = 2 if config.optim.kind == "adamw" else int(config.optim.momentum > 0)
    memory, host = memory_of(engine, weights, frozen_bytes, cost, gpus=gpus, moments=moments)
    flops = cost.flops * engine.accumulation

    return Estimate(
        gpus=gpus,
        trained=weights,
        frozen=sum(parameter.numel() for parameter in frozen),
        memory=memory,
        host_bytes=host,
        flops=flops,
        step_seconds=flops / (tflops * 1e12),
        steps=_steps(config, gpus, images),
    )


def memory_of(
    engine: EngineConfig,
    trained: int,
    frozen_bytes: int,
    cost: StepCost,
    *,
    gpus: int,
    moments: int = 2,
) -> tuple[Memory, int]:
    """Return the memory of one GPU, and the bytes that it keeps in host memory.

    ZeRO (arXiv 1910.02054): stage 1 shares the optimizer's states over GPUs, stage 2 the gradients
    too, stage 3 the weights too. DeepSpeed keeps a float32 copy of the weights with the states from
    stage 1 on, in every precision.

    Args:
        trained: number of weights that train.
        frozen_bytes: of the weights that do not.
        moments: float32 numbers that the optimizer has for each weight.
    """
    engine = engine.for_ranks(gpus)
    stage = engine.zero_stage or 0
    weight_bytes = WEIGHT_DTYPES[engine.precision].itemsize
    share = -(-trained // gpus)

    weights = (share if stage == 3 else trained) * weight_bytes
    gradients = (share if stage >= 2 else trained) * weight_bytes
    states = trained * 4 * moments if stage == 0 else share * 4 * (moments + 1)

    host = 0
    if engine.offload != "none":
        host = share * 4 * (moments + 2)
        states = 0
        gradients = 0 if stage >= 2 else gradients
    if engine.offload == "optimizer_and_parameters":
        host += weights
        weights = 0

    # Whole gradients are part of the step's peak, and counted above; gradients that are not kept
    # whole leave the trace as soon as they are complete.
    if stage < 2:
        step = cost.peak_bytes - trained * weight_bytes
    else:
        step = cost.peak_bytes_without_gradients
    buckets = 0 if stage == 0 else min(BUCKET_ELEMENTS, trained) * weight_bytes

    memory = Memory(
        frozen_weights=frozen_bytes,
        trained_weights=weights,
        gradients=gradients,
        optimizer_states=states,
        step=max(step, 0),
        buckets=buckets,
    )
    return memory, host


def tensors_of(task: Task) -> tuple[list[nn.Parameter], list[Tensor]]:
    """Return parameters and buffers of all modules of a task: its model, and others such as a
    teacher."""
    parameters: list[nn.Parameter] = []
    buffers: list[Tensor] = []
    for value in vars(task).values():
        if isinstance(value, nn.Module):
            parameters += value.parameters()
            buffers += value.buffers()
    return parameters, buffers


def example_batch(config: TrainConfig) -> Any:
    """Return a batch of zeros with the shapes that training will have."""
    kind = find_method(config.task.name).data
    return kind.example_batch(config.data, native_px(config))


def _steps(config: RunOptions, gpus: int, images: int | None) -> int | None:
    if config.schedule.steps is not None:
        return config.schedule.steps
    if images is None:
        return None
    batches = len(global_steps(images, gpus * config.data.batch_size, gpus))
    return batches // config.engine.accumulation * config.schedule.epochs
