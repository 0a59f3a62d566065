"""Detectors on the device: losses against the CPU's, precisions and ZeRO stages, places that wait,
and the speed of F-ViT's heads beside torchvision's.

The golden cases of detectors are tests marked `device`; the part `golden` runs them.
"""

import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import detector_heads
import torch
from clim_train import TrainConfig, build_task
from clim_train.engine import Engine, start_distributed
from clim_train.options import choose_device
from clim_train.run import FiniteWatch, RunningMean
from torch import Tensor

from gpu_parts.detector_cases import RECIPES, detector_config, train_all_boxes
from gpu_parts.exact import exact_float32
from gpu_parts.no_sync import check_no_sync
from gpu_parts.record import Part
from gpu_parts.timing import time_calls
from gpu_parts.training_cases import (
    THINGS,
    TINY_TOWER,
    first_batches,
    make_model,
    register_tiny_tower,
    with_engine,
    write_photos,
)

# Relative differences of a loss.
# - float32 on two devices: products of up to 12,544 terms (7 x 7 windows of 256 channels) in another
#   order, sqrt(12544) x 2^-24 = 7e-6 in each of about 20 layers, and one of 512 boxes that another
#   rounding gives another label (2e-3).
# - 16 bits: 2^-9 in each of about 20 layers, and proposals that another rounding replaces.
SAME_ARITHMETIC, SIXTEEN_BITS = 2e-2, 1e-1
STEPS = 3

# Where a step of a detector has to know numbers. Nothing else may wait.
CHOOSING = {
    "rpn.py:propose": "proposals: boxes without area are dropped, and NMS returns as many as are left",
    "roi.py:align_pyramid": "boxes of each level are gathered, whose number depends on their sizes",
    "targets.py:sample_batch": "positive boxes are gathered, whose number depends on the proposals",
}
# Annotations on a CPU are looked at, because that costs nothing; on a GPU they are not.
ON_CPU = {
    "targets.py:_check_values": "sides of boxes that are on the CPU",
    "targets.py:check_annotations": "range of labels that are on the CPU",
}


@dataclass(frozen=True)
class Variant:
    """How the engine runs, and how near its first loss is to float32 on the CPU."""

    precision: str
    stage: int
    tolerance: float
    needs_gpu: bool = False

    @property
    def name(self) -> str:
        return f"{self.precision}, stage {self.stage}"


VARIANTS = (
    *[Variant("fp32", stage, SAME_ARITHMETIC) for stage in (0, 1, 2)],
    Variant("amp_bf16", 1, SIXTEEN_BITS),
    Variant("fp16", 2, SIXTEEN_BITS, needs_gpu=True),
)


def run(part: Part) -> None:
    began = time.monotonic()
    size = (48, 64) if part.tiny else (480, 640)
    photos = write_photos(part.folder / "photos", 16, size)
    register_tiny_tower()
    configs = {name: detector_config(name, part, photos) for name in RECIPES}
    start_distributed(choose_device(configs["fvit"].engine))

    for name, config in configs.items():
        with part.guarded(f"{name}: set up"), exact_float32():
            Case(part, config).check()
        if part.on_gpu:
            torch.cuda.empty_cache()

    with part.guarded("speed of the heads"):
        measure_heads(part, began + 0.9 * part.seconds)


class Case:
    """A method with its model, start weights and batches."""

    def __init__(self, part: Part, config: TrainConfig):
        self.part, self.config, self.method = part, config, config.task.name
        torch.manual_seed(0)
        # On the CPU: a device draws other numbers.
        self.tower = make_model(config, torch.device("cpu"))
        self.batches = first_batches(config, part.device)
        self.wanted = self._first_loss(torch.device("cpu"))

    def check(self) -> None:
        """Check the first loss, the variants of the engine, and the places that wait."""
        found = self._first_loss(self.part.device)
        name = f"{self.method}: first loss on the device against the CPU"
        self.part.within(name, self._error(found), SAME_ARITHMETIC)

        variants = VARIANTS[3:] if self.part.tiny and self.method != "fvit" else VARIANTS
        for variant in variants:
            with self.part.guarded(f"{self.method}: {variant.name}"):
                self._check_variant(variant)
        with self.part.guarded(f"{self.method}: waiting"):
            self._check_waiting()

    def _task(self, config: TrainConfig, device: torch.device) -> Any:
        """Build the task, with the same random weights each time."""
        torch.manual_seed(0)
        # The heads are drawn on the CPU, too. The task of a detector is the same at every precision,
        # and a CPU refuses fp16.
        on_cpu = with_engine(config, device="cpu", precision="fp32")
        task = build_task(on_cpu, deepcopy(self.tower), THINGS)
        train_all_boxes(task.model, tiny=self.part.tiny)
        task.model.to(device)
        return task

    def _first_loss(self, device: torch.device) -> Tensor:
        task = self._task(self.config, device)
        task.model.train()
        with torch.no_grad():
            return task.loss(self.batches[0].to(device))["loss"].float().cpu()

    def _error(self, found: Tensor) -> float:
        """Return the difference from the CPU's first loss, relative to it."""
        error = ((found - self.wanted).abs() / self.wanted.abs()).max().item()
        return error if math.isfinite(error) else math.inf

    def _check_variant(self, variant: Variant) -> None:
        name = f"{self.method}: {variant.name}"
        if variant.needs_gpu and not self.part.on_gpu:
            self.part.check(f"{name} (needs a GPU)", True, "not run on a CPU")
            return
        if self.method == "detic" and variant.precision == "fp16":
            self.part.check(f"{name} (is refused)", True, "pixels and boxes are float32")
            return
        config = with_engine(self.config, precision=variant.precision, zero_stage=variant.stage)
        engine = Engine(self._task(config, self.part.device), config, device=self.part.device)
        losses = []
        try:
            for step in range(1 if self.part.tiny else STEPS):
                losses.append(engine.forward_backward(self.batches[step % 2])["loss"])
                engine.step(1e-4)
        finally:
            engine.close()
        found = torch.stack(losses).reshape(-1).float().cpu()
        self.part.check(f"{name}: losses are finite", bool(found.isfinite().all()), str(found))
        title = f"{name}: first loss against float32 on the CPU"
        self.part.within(title, self._error(found[0]), variant.tolerance)

    def _check_waiting(self) -> None:
        """Watch loss and backward; a step of the engine is watched by the part `sync`."""
        task = self._task(self.config, self.part.device)
        task.model.train()
        means, finite = RunningMean(), FiniteWatch()

        def step() -> None:
            scalars = task.loss(self.batches[0])
            scalars["loss"].backward()
            finite.add(1, scalars["loss"], self.batches[0])
            means.add({key: value.detach() for key, value in scalars.items()})

        allowed = CHOOSING if self.part.on_gpu else CHOOSING | ON_CPU
        check_no_sync(self.part, f"{self.method}: loss and metrics", step, allowed)


def measure_heads(part: Part, deadline: float) -> None:
    """Time a test and a training step of F-ViT's heads, and of torchvision's on the same maps."""
    case = detector_heads.Case("EVA02-B-16", 640, 8, device=part.device.type)
    if part.tiny:
        case = detector_heads.Case(TINY_TOWER, 64, 2, blocks=(0, 0, 1, 1), channels=8)
    builders: dict[str, Callable[[detector_heads.Case], Callable[[], Any]]] = {
        "F-ViT, test": detector_heads.our_test,
        "torchvision's heads, test": detector_heads.torchvision_test,
        "F-ViT, training step": detector_heads.our_step,
        "torchvision's heads, training step": detector_heads.torchvision_step,
    }
    repeats, warmup = (2, 1) if part.tiny else (10, 3)
    for name, build in builders.items():
        if time.monotonic() > deadline:
            part.check(f"speed: {name}", False, "left out: no time")
            continue
        timing = time_calls(build(case), part.device, repeats=repeats, warmup=warmup)
        sizes = f"{case.batch} x {case.image_px} px, {case.model}"
        part.figure(
            name,
            timing.seconds * 1e3,
            "ms",
            detail=f"{sizes}; peak {timing.peak_gib:.2f} GiB, from {timing.low * 1e3:.1f} to "
            f"{timing.high * 1e3:.1f} ms",
        )
        if part.on_gpu:
            torch.cuda.empty_cache()
