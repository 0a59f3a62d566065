"""encode_dense and encode_boxes in images per second, and their share of what the card can do.

The weights are in bfloat16, as `create_model(..., precision="bf16")` makes them; the images are on
the device. FLOPs are those of PyTorch's counter on the unfused path, where every product is a
matrix product, so each kernel is held against the same work. Softmax, norms and the rotary
embedding count as nothing.
"""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from clim_models import RegionModel
from dense_attention import set_fused
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gpu_parts import image_towers
from gpu_parts.image_towers import ImageTower
from gpu_parts.record import Part
from gpu_parts.timing import Ceiling, ceiling, time_calls

BOXES = 100  # of an image

# Fused and unfused attention on the same weights in bfloat16: both are as far from float32 as
# `features` allows, so their patches are within twice that of each other: 1 - cosine below 1e-2 is
# safe, and a wrong kernel is far beyond.
AGREEMENT = 0.99


@dataclass(frozen=True)
class Case:
    """A tower with the batch that fills the card's units without filling its memory."""

    tower: ImageTower
    batch: int


def run(part: Part) -> None:
    began = time.monotonic()
    limits = ceiling(part.device, tiny=part.tiny)
    part.figure("ceiling: bf16 product", limits.flops / 1e12, "TFLOP/s")
    part.figure("ceiling: copy", limits.bytes / 1e9, "GB/s")

    if part.tiny:
        eva_b, eva_l, *_ = image_towers.tiny()
        cases = (Case(eva_b, 2), Case(eva_l, 2))
    else:
        # L/14 at its other native size: 896 px are 64 x 64 patches in both.
        cases = (
            Case(image_towers.EVA_B, 16),
            Case(replace(image_towers.EVA_L, name="EVA02-L/14 at 896 px"), 8),
        )

    for case in cases:
        if not part.tiny and time.monotonic() - began > 0.7 * part.seconds:
            part.check(f"{case.tower.name}: left out, no time", False)
            continue
        with part.guarded(case.tower.name):
            measure(part, case, limits)
        gc.collect()


def measure(part: Part, case: Case, limits: Ceiling) -> None:
    """Time one tower: fused, boxes, a single image, then unfused."""
    tower = replace(case.tower, images=case.batch)
    model = tower.build(part.device).to(torch.bfloat16)
    images = image_towers.structured_images(tower, part.device).to(torch.bfloat16)
    boxes = [image_towers.random_boxes(1, BOXES, part.device, seed=i)[0] for i in range(case.batch)]
    name = f"{tower.name}, batch {case.batch}"

    report(part, limits, f"{name}: encode_dense, fused", model.encode_dense, images)
    report(
        part,
        limits,
        f"{name}: encode_boxes align, {BOXES} boxes",
        model.encode_boxes,
        images,
        boxes,
    )
    report(
        part,
        limits,
        f"{name}: encode_boxes attention, {BOXES} boxes",
        lambda pixels, regions: model.encode_boxes(pixels, regions, mode="attention"),
        images,
        boxes,
    )
    report(
        part, limits, f"{tower.name}, batch 1: encode_dense, fused", model.encode_dense, images[:1]
    )

    check_agreement(part, name, model, images[:1])
    set_fused(model, False)
    report(part, limits, f"{name}: encode_dense, unfused", model.encode_dense, images)


def check_agreement(part: Part, name: str, model: RegionModel, images: Tensor) -> None:
    """Both kinds of attention give the same features: what is compared does the same work."""
    with torch.no_grad():
        fused = model.encode_dense(images).double()
        set_fused(model, False)
        unfused = model.encode_dense(images).double()
        set_fused(model, True)
    cosines = torch.nn.functional.cosine_similarity(fused, unfused, dim=1)
    part.at_least(
        f"{name}: fused and unfused agree, lowest cosine", cosines.min().item(), AGREEMENT
    )


def report(
    part: Part, limits: Ceiling, name: str, call: Callable[..., Any], images: Tensor, *regions: Any
) -> None:
    """Time one call and report images/s with milliseconds, memory and share of the ceiling."""
    with part.guarded(name), torch.no_grad():
        timing = time_calls(
            lambda: call(images, *regions),
            part.device,
            repeats=3 if part.tiny else 20,
            warmup=1 if part.tiny else 3,
            limit=3.0,
        )
        work = count_flops(lambda: call(images[:1], *(r[:1] for r in regions))) * len(images)
        detail = (
            f"{timing.seconds / len(images) * 1000:.2f} ms an image ({timing.low * 1000:.1f} to "
            f"{timing.high * 1000:.1f} ms a call), peak {timing.peak_gib:.2f} GiB, "
            f"{work / len(images) / 1e12:.3f} TFLOP an image"
        )
        share = work / timing.seconds / limits.flops
        part.figure(name, len(images) / timing.seconds, "images/s", share=share, detail=detail)


def count_flops(call: Callable[[], Any]) -> int:
    """FLOPs of one call, a multiplication and an addition being two."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        call()
    return counter.get_total_flops()
