"""How fast a training step is, how near to what the card can do, and where its time goes.

CLIM and CLIPSelf of EVA02-B/16 at 1024 px and EVA02-L/14 at 896 px, all blocks train, bf16
arithmetic on float32 weights, as in the recipes. A step is the whole of it: copies of the batch,
forward, backward, AdamW.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from clim_data import CropBatch, MosaicBatch, MosaicConfig, plan_mosaics
from clim_models import RegionModel, copy_image_side
from clim_train import (
    ClimTask,
    ClipSelfConfig,
    ClipSelfTask,
    CropDataConfig,
    EngineConfig,
    OptimConfig,
    Task,
    TrainConfig,
)
from clim_train.engine import Engine, start_distributed
from clim_train.options import choose_device
from clim_train.run import to_device
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from gpu_parts import image_towers
from gpu_parts.image_towers import ImageTower
from gpu_parts.record import Part
from gpu_parts.timing import Ceiling, Timing, ceiling, time_calls

RECIPE_IMAGES = 32  # of CLIM's recipes per GPU: three mosaics and three single images
GROUP = 29  # images of a 2x2, a 3x3 and a 4x4 mosaic
CELLS = 9  # of the grids that CLIPSelf's recipes draw, 9 on average
FREE_SHARE = 0.2  # of the card's memory that a full batch leaves; pieces that do not fit need it
COMPILE_SECONDS = 30.0

# What the name of a kernel says about its work; the first that fits counts.
KINDS = {
    "attention": ("flash", "fmha", "attention", "sdpa", "mha_", "cudnn_generated"),
    "products": (
        "gemm",
        "cutlass",
        "nvjet",
        "xmma",
        "cublas",
        "addmm",
        "::mm",
        "::bmm",
        "matmul",
        "linear",
    ),
    "optimizer": ("adam", "multi_tensor"),
    "copies from the host": ("memcpy htod", "memcpy h2d"),
    "RoIAlign": ("roi_align", "roialign"),
}


def run(part: Part) -> None:
    start_distributed(choose_device(_config(part, 1).engine))
    torch.set_float32_matmul_precision("highest")
    with part.guarded("ceiling"):
        most = ceiling(part.device, tiny=part.tiny)
        part.figure("one large product", most.flops / 1e12, "TFLOP/s in bf16")
        part.figure("one large copy", most.bytes / 1e9, "GB/s read and written")

    deadline = time.monotonic() + 0.92 * part.seconds
    towers = image_towers.tiny()[:1] if part.tiny else (image_towers.EVA_B, image_towers.EVA_L)
    for tower in towers:
        with part.guarded(tower.name):
            measure_tower(part, tower, most, deadline)


def measure_tower(part: Part, tower: ImageTower, most: Ceiling, deadline: float) -> None:
    """CLIM at the recipe's batch and at one that fills the card, then CLIPSelf at the recipe's two
    images."""
    with torch.device(part.device):
        model = tower.build(part.device)
    model.freeze(model.num_blocks)
    bench = Bench(part, f"CLIM {tower.name}", most, deadline)

    with opened(part, clim_task(part, model), RECIPE_IMAGES) as engine:
        batch = clim_batch(tower, RECIPE_IMAGES)
        timing = bench.measure(engine, batch, f"{RECIPE_IMAGES} images")
        bench.profile(engine, batch, timing.seconds)

        full = bench.full_batch(engine, tower)
        bench.measure(engine, full, f"{len(full)} images (a full card)")
        if bench.has_time(5, "checkpointing"):
            model.set_grad_checkpointing(True)
            bench.measure(engine, full, f"{len(full)} images, checkpointing", flops_of=len(full))
            model.set_grad_checkpointing(False)
        if bench.has_time(COMPILE_SECONDS, "compile"):
            with compiled(model, "inductor" if part.on_gpu else "eager"):
                bench.measure(
                    engine, full, f"{len(full)} images, compiled blocks", flops_of=len(full)
                )

    model.freeze(model.num_blocks, path="dense")
    bench = Bench(part, f"CLIPSelf {tower.name}", most, deadline)
    if bench.has_time(8, "2 images"):
        with opened(part, clipself_task(model), 2) as engine:
            bench.measure(engine, clipself_batch(tower, model, 2), "2 images")
    if part.on_gpu:
        torch.cuda.empty_cache()


@dataclass
class Bench:
    """Figures of one method and tower; each of their names begins with `name`."""

    part: Part
    name: str
    most: Ceiling
    deadline: float

    def __post_init__(self) -> None:
        self._flops: dict[int, int] = {}

    def has_time(self, seconds: float, what: str) -> bool:
        """Whether so many seconds are left; reports what is left out otherwise."""
        enough = time.monotonic() + seconds < self.deadline
        if not enough:
            self.part.check(f"{self.name}: {what}", False, "left out: no time")
        return enough

    def measure(
        self,
        engine: Engine,
        batch: MosaicBatch | CropBatch,
        case: str,
        *,
        flops_of: int | None = None,
    ) -> Timing:
        """Time a step.

        Args:
            flops_of: count the arithmetic of the plain step with so many samples, not what a step
                repeats.
        """
        step = step_of(engine, batch)
        repeats, warmup = (2, 1) if self.part.tiny else (8, 2)
        timing = time_calls(step, self.part.device, repeats=repeats, warmup=warmup, limit=4.0)
        if flops_of is None:
            flops_of = len(batch)
            with FlopCounterMode(display=False) as counter:
                step()
            self._flops[flops_of] = counter.get_total_flops()

        name, seconds = f"{self.name}, {case}", timing.seconds
        memory = f"peak {timing.peak_gib:.1f} GiB, from {timing.low * 1e3:.1f} to {timing.high * 1e3:.1f} ms a step"
        self.part.figure(name, len(batch) / seconds, "samples/s", detail=memory)
        rate = self._flops[flops_of] / seconds
        self.part.figure(
            f"{name}: arithmetic", rate / 1e12, "TFLOP/s", share=rate / self.most.flops
        )
        return timing

    def full_batch(self, engine: Engine, tower: ImageTower) -> MosaicBatch:
        """The largest batch of whole groups that leaves a fifth of the memory; twice the smallest
        on a CPU."""
        groups = 2
        if self.part.on_gpu:
            peaks = [
                _peak(engine, clim_batch(tower, GROUP * count), self.part.device)
                for count in (1, 2)
            ]
            each = max(peaks[1] - peaks[0], 2**28)
            total = torch.cuda.get_device_properties(self.part.device).total_memory
            groups = max(1, int(((1 - FREE_SHARE) * total - peaks[0]) // each) + 1)
        while True:
            batch = clim_batch(tower, GROUP * groups)
            try:
                step_of(engine, batch)()
                return batch
            except torch.OutOfMemoryError:
                # A peak that grows faster than the line through the two smallest: give back what is
                # broken off.
                if groups == 1:
                    raise
                engine._engine.module.zero_grad()
                groups = max(1, groups * 4 // 5)
            torch.cuda.empty_cache()

    def profile(self, engine: Engine, batch: MosaicBatch, seconds: float) -> None:
        """Shares of three steps by kind of kernel; idle is what is left of `seconds`, a step
        without the profiler."""
        step, steps = step_of(engine, batch), 3
        activities = [ProfilerActivity.CUDA] if self.part.on_gpu else [ProfilerActivity.CPU]
        with profile(activities=activities) as recorded:
            for _ in range(steps):
                step()
            if self.part.on_gpu:
                torch.cuda.synchronize(self.part.device)

        found: dict[str, float] = dict.fromkeys([*KINDS, "other kernels"], 0.0)
        for name, spent in kernels(recorded, on_gpu=self.part.on_gpu):
            found[kind_of(name)] += spent / steps
        for kind, spent in found.items():
            self.part.figure(
                f"{self.name}, {len(batch)} images: {kind}", 100 * spent / seconds, "% of a step"
            )
        if self.part.on_gpu:
            idle = max(0.0, 1 - sum(found.values()) / seconds)
            self.part.figure(f"{self.name}, {len(batch)} images: idle", 100 * idle, "% of a step")


def kernels(recorded: profile, *, on_gpu: bool) -> Iterator[tuple[str, float]]:
    """Name and seconds of each kind of kernel (on a CPU: operator)."""
    for entry in recorded.key_averages():
        if on_gpu:
            # Ranges of the host are shown on the device as well, over the kernels that are in them.
            if entry.device_type == torch.autograd.DeviceType.CUDA and not getattr(
                entry, "is_user_annotation", False
            ):
                yield entry.key, entry.self_device_time_total / 1e6
        else:
            yield entry.key, entry.self_cpu_time_total / 1e6


def kind_of(name: str) -> str:
    lower = name.lower()
    return next(
        (kind for kind, words in KINDS.items() if any(word in lower for word in words)),
        "other kernels",
    )


# -- what is timed ---------------------------------------------------------------------------------


def step_of(engine: Engine, batch: MosaicBatch | CropBatch) -> Callable[[], None]:
    """A whole step: the batch lies in the host's memory, as a loader leaves it."""

    def step() -> None:
        engine.forward_backward(to_device(batch, engine.device))
        engine.step(1e-6)

    return step


@contextlib.contextmanager
def opened(part: Part, task: Task, images: int) -> Iterator[Engine]:
    engine = Engine(task, _config(part, images), device=part.device)
    try:
        yield engine
    finally:
        engine.close()


@contextlib.contextmanager
def compiled(model: RegionModel, backend: str) -> Iterator[None]:
    """Inside, each block of the image tower is compiled; all blocks share one graph."""
    blocks = list(model.tower.blocks)
    for block in blocks:
        block.compile(backend=backend, dynamic=False)
    try:
        yield
    finally:
        for block in blocks:
            block._compiled_call_impl = None
        torch._dynamo.reset()


def clim_task(part: Part, model: RegionModel) -> ClimTask:
    """CLIM whose text features are all known, as they are after the first epoch."""
    task = ClimTask(model)
    rows = F.normalize(torch.randn(4096, model.embed_dim, device=part.device), dim=1)
    task.text_features._kept.update((_caption(i), row) for i, row in enumerate(rows))
    return task


def clipself_task(model: RegionModel) -> ClipSelfTask:
    return ClipSelfTask(model, copy_image_side(model), teacher_autocast=torch.bfloat16)


def clim_batch(tower: ImageTower, images: int) -> MosaicBatch:
    """Noise, laid out as the recipe lays out so many images."""
    side = tower.image_px
    config = MosaicConfig(canvas_px=side, single_px=min(side, 224))
    plan = plan_mosaics(images, config)
    names = [_caption(i) for i in range(images)]
    mosaics, singles = _noise(len(plan.sides), side), _noise(plan.num_singles, config.single_px)
    return MosaicBatch(mosaics, plan.boxes(config), singles, names, names)


def clipself_batch(tower: ImageTower, model: RegionModel, images: int) -> CropBatch:
    """Noise with the mean number of cells per image, and crops of the native size."""
    low = torch.rand(images, CELLS, 2) * 0.6
    boxes = list(torch.cat([low, low + 0.3], 2))
    names = [str(i) for i in range(images)]
    return CropBatch(
        _noise(images, tower.image_px), boxes, _noise(images * CELLS, model.image_size[0]), names
    )


def _noise(count: int, side: int) -> torch.Tensor:
    """uint8 (count, 3, side, side), channels last in memory as a loader's."""
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8).permute(0, 3, 1, 2)


def _caption(i: int) -> str:
    return f"caption {i}"


def _config(part: Part, images: int) -> TrainConfig:
    """What the recipes run on one GPU; the kind of data does not matter to the engine."""
    return TrainConfig(
        data=CropDataConfig(batch_size=images),
        task=ClipSelfConfig(),
        optim=OptimConfig(lr=1e-6),
        engine=EngineConfig(zero_stage=0, precision="amp_bf16", device=part.device.type),
    )


def _peak(engine: Engine, batch: MosaicBatch, device: torch.device) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    step_of(engine, batch)()
    return torch.cuda.max_memory_allocated(device)
