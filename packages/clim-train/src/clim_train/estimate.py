"""How much memory and time a run will take, before a GPU is rented: `clim-train estimate RECIPE
--gpus 8`.

Activations and arithmetic come from a trace of the real step (`step_cost`); what ZeRO stores
follows from the number of weights. Only the share of a GPU's peak speed that is reached is an
assumption, and an option.
"""

import gc
import statistics
from dataclasses import dataclass, fields, replace

import torch
from clim_data import BoxBatch, CropBatch, MosaicBatch, plan_mosaics
from clim_data.pixels.crops import grid_choices
from clim_data.streams.epochs import global_steps
from clim_models.open_clip_compat import no_weights_yet
from torch import nn
from tqdm import tqdm

from clim_train.build import build_model, build_task, native_px
from clim_train.config import TrainConfig
from clim_train.engine.engine import BUCKET_ELEMENTS, WEIGHT_DTYPES
from clim_train.methods.crops import CropDataConfig
from clim_train.methods.pairs import PairDataConfig
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
    """Bytes on one GPU. Their sum leaves out the CUDA context (about half a GB) and fragmentation
    (a few percent)."""

    frozen_weights: int
    """The model's weights that do not train, and a teacher."""
    trained_weights: int
    gradients: int
    optimizer_states: int
    """AdamW's two moments and the float32 copy that the optimizer updates, where there is one."""
    step: int
    """What a micro-batch needs most at once beside all of these: activations, and copies of weights
    in 16 bits."""
    buckets: int
    """Buffers in which gradients travel between GPUs."""

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class Estimate:
    """memory: of one GPU. flops: of one optimizer step on one GPU. step_seconds, steps, hours: of
    the run on `gpus`.

    steps and hours are None where the number of images is not known.
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
        return None if self.steps is None else self.steps * self.step_seconds / 3600


def estimate(
    config: TrainConfig,
    *,
    gpus: int,
    tflops: float,
    images: int | None = None,
    progress: bool = False,
) -> Estimate:
    """Memory and time of a run of `config`.

    Args:
        gpus: GPUs that share the run, `config.data.batch_size` images each per micro-batch.
        tflops: arithmetic that one GPU sustains, 1e12 floating-point operations per second.
        images: of the data set; not needed where the schedule says its steps.
        progress: show a live line on stderr.

    The weights are random ones on the CPU, whatever `config.model.pretrained` is: only their shapes
    count.
    """
    engine = config.engine.for_ranks(gpus)
    # Without weights from a file; a tower as it is built, in the precision of the run.
    config = replace(config, model=replace(config.model, pretrained=None), engine=engine)
    with tqdm(
        desc=f"building {config.model.name}", unit=" operations", disable=not progress, leave=False
    ) as bar:
        with no_weights_yet():
            model = build_model(config).to(dtype=WEIGHT_DTYPES[engine.precision])
        task = build_task_for_shapes(config, model)
        trained = list(task.trainable_parameters().values())
        bar.set_description_str("tracing a step")
        cost = step_cost(
            task.loss,
            lambda: example_batch(config),
            trained,
            [
                tensor
                for module in modules_of(task)
                for tensor in [*module.parameters(), *module.buffers()]
            ],
            autocast=torch.bfloat16 if engine.precision == "amp_bf16" else None,
            advance=bar.update,
        )
    frozen = [p for module in modules_of(task) for p in module.parameters() if not p.requires_grad]
    memory, host = memory_of(
        config, sum(p.numel() for p in trained), sum(p.nbytes for p in frozen), cost, gpus=gpus
    )
    flops = cost.flops * engine.accumulation
    result = Estimate(
        gpus=gpus,
        trained=sum(p.numel() for p in trained),
        frozen=sum(p.numel() for p in frozen),
        memory=memory,
        host_bytes=host,
        flops=flops,
        step_seconds=flops / (tflops * 1e12),
        steps=_steps(config, gpus, images),
    )
    del model, task
    gc.collect()
    return result


def memory_of(
    config: TrainConfig, trained: int, frozen_bytes: int, cost: StepCost, *, gpus: int
) -> tuple[Memory, int]:
    """Memory of one GPU, and bytes in host memory, for so many trained weights under
    `config.engine`.

    ZeRO (arXiv 1910.02054): stage 1 shares the optimizer's states over GPUs, stage 2 the gradients
    too, stage 3 the weights too. DeepSpeed keeps a float32 copy of the weights with the states from
    stage 1 on, in every precision.
    """
    engine = config.engine.for_ranks(gpus)
    weight_bytes = WEIGHT_DTYPES[engine.precision].itemsize
    stage, share = engine.zero_stage, -(-trained // gpus)
    weights = (share if stage == 3 else trained) * weight_bytes
    gradients = (share if stage >= 2 else trained) * weight_bytes
    states = trained * 8 if stage == 0 else share * 12
    host = 0
    if engine.offload != "none":
        states, gradients, host = 0, 0 if stage >= 2 else gradients, share * 16
    if engine.offload == "optimizer_and_parameters":
        host, weights = host + weights, 0
    # Whole gradients are part of the step's peak; what is not kept whole, the trace gives away as
    # it comes.
    step = (
        cost.peak_bytes - trained * weight_bytes if stage < 2 else cost.peak_bytes_without_gradients
    )
    buckets = 0 if stage == 0 else min(BUCKET_ELEMENTS, trained) * weight_bytes
    return Memory(frozen_bytes, weights, gradients, states, max(step, 0), buckets), host


def modules_of(task: Task) -> list[nn.Module]:
    """The modules a task holds: its model, and others beside it, such as a teacher."""
    return [value for value in vars(task).values() if isinstance(value, nn.Module)]


def build_task_for_shapes(config: TrainConfig, model: nn.Module) -> Task:
    """The task, with class embeddings of the right shape where it needs some."""
    if config.task.name != "regionclip":
        return build_task(config, model)
    from clim_train.methods.regionclip import RegionClipTask

    task = config.task
    embeddings = torch.ones(max(task.sampled_classes or 0, 1203), model.embed_dim)
    return RegionClipTask(
        model,
        embeddings,
        box_mode=task.box_mode,
        sampled_classes=task.sampled_classes,
        sampling=task.sampling,
    )


def example_batch(config: TrainConfig) -> MosaicBatch | CropBatch | BoxBatch:
    """A batch of the shapes that training will have; grids have the mean number of cells, other
    boxes the most."""
    data = config.data
    if isinstance(data, PairDataConfig):
        plan, mosaic = plan_mosaics(data.batch_size, data.mosaic), data.mosaic
        names = [str(i) for i in range(data.batch_size)]
        mosaics = _pixels(len(plan.sides), mosaic.canvas_px)
        return MosaicBatch(
            mosaics, plan.boxes(mosaic), _pixels(plan.num_singles, mosaic.single_px), names, names
        )
    keys = [str(i) for i in range(data.batch_size)]
    images = _pixels(data.batch_size, data.image_px)
    if isinstance(data, CropDataConfig):
        count = boxes_per_image(data)
        crops = _pixels(data.batch_size * count, data.crop_px or native_px(config))
        return CropBatch(images, [_boxes(count)] * data.batch_size, crops, keys)
    boxes = [_boxes(data.max_boxes)] * data.batch_size
    return BoxBatch(
        images, boxes, torch.zeros(data.batch_size * data.max_boxes, dtype=torch.int64), keys
    )


def boxes_per_image(data: CropDataConfig) -> int:
    """Crops per image: the mean over all grids, or as many proposals as are taken."""
    if data.boxes is not None:
        return data.max_cells
    return round(
        statistics.mean(min(m * n, data.max_cells) for m, n in grid_choices(data.max_split))
    )


def _pixels(count: int, side: int) -> torch.Tensor:
    return torch.zeros(count, 3, side, side, dtype=torch.uint8)


def _boxes(count: int) -> torch.Tensor:
    return torch.tensor([[0.1, 0.1, 0.9, 0.9]]).repeat(count, 1)


def _steps(config: TrainConfig, gpus: int, images: int | None) -> int | None:
    if config.schedule.steps is not None:
        return config.schedule.steps
    if images is None:
        return None
    batches = len(global_steps(images, gpus * config.data.batch_size, gpus))
    return batches // config.engine.accumulation * config.schedule.epochs
