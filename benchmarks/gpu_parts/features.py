"""Features of images, patches, boxes and masks on the device: against the CPU, in 16 bits,
compiled, checkpointed.

How far two results may lie apart follows from the arithmetic. One block of a tower rounds about
five times something of the size of its output (the norm, the products before and after attention,
the residual sums), each time by a random part of u, half the distance of two numbers around 1.
After d blocks the feature, a unit vector, is off by r = u sqrt(5 d), and the cosine of what should
be equal is 1 - r^2 / 2. Measured on a CPU against float64 at 448 px, EVA02-B/16 has 1 - cosine =
1.2e-4 in bfloat16 (r^2 / 2 = 1.1e-4) and 1.9e-6 in float16 (1.8e-6).
"""

import copy
import gc
import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from clim_models import RegionModel
from torch import Tensor, nn

from gpu_parts import image_towers
from gpu_parts.exact import exact_float32
from gpu_parts.image_towers import ImageTower
from gpu_parts.record import Part

UNIT = {torch.float64: 2**-53, torch.float32: 2**-24, torch.float16: 2**-12, torch.bfloat16: 2**-9}
ROUNDINGS_PER_BLOCK = 5

# Kernels round at other places than the five, and features of regions add attention of their own:
# eight times the expected 1 - cosine. A rotary table in bfloat16 or sums of 4,096 terms in 16 bits
# are beyond it.
MARGIN = 8

# Few patches may be off by more than the mean: their attention is close to a tie. 1st percentile of
# the cosines.
PERCENTILE_MARGIN = 3

OUTPUTS = (
    "image",
    "dense",
    "dense_value",
    "boxes",
    "boxes_value",
    "boxes_attention",
    "masks",
    "masks_attention",
)


def run(part: Part) -> None:
    began = time.monotonic()
    eva_b, eva_l, vit, resnet, siglip = image_towers.tiny() if part.tiny else image_towers.FULL
    small_eva, small_vit = (image_towers.with_blocks(tower, 3) for tower in (eva_b, vit))

    steps: list[tuple[str, Callable[[Part, ImageTower], None], ImageTower]] = [
        (eva_b.name, check_tower, eva_b),
        ("gradient checkpointing", check_checkpointing, small_eva),
        (f"torch.compile of {eva_b.model}", check_compiled, small_eva),
        (vit.name, check_tower, vit),
        (resnet.name, check_tower, resnet),
        (siglip.name, check_tower, siglip),
        (eva_l.name, check_tower, eva_l),
        (f"torch.compile of {vit.model}", check_compiled, small_vit),
    ]
    with exact_float32():
        for name, step, tower in steps:
            # A step takes up to 15 seconds; one that has begun should also end.
            if not part.tiny and time.monotonic() - began > part.seconds - 15:
                part.check(f"{name}: left out, no time", False)
                continue
            with part.guarded(name):
                step(part, tower)
            gc.collect()


def check_tower(part: Part, tower: ImageTower) -> None:
    """Check one tower in every precision."""
    model = tower.build(part.device)
    inputs = Inputs(model, tower, part.device)
    features = inputs.single_calls(model)

    check_spread(part, tower, features["dense"])
    check_against_cpu(part, tower, model, features)

    for dtype in (torch.bfloat16, torch.float16):
        with part.guarded(f"{tower.name}: {name_of(dtype)} weights"):
            check_16_bits(
                part, f"{tower.name}: {name_of(dtype)} weights", model, inputs, features, dtype
            )
    with part.guarded(f"{tower.name}: bf16 autocast"):
        check_autocast(part, f"{tower.name}: bf16 autocast", model, inputs, features)


class Inputs:
    """Images with boxes and masks, and every way to ask for their features."""

    def __init__(self, model: RegionModel, tower: ImageTower, device: torch.device):
        self.images = image_towers.structured_images(tower, device)
        self.boxes = image_towers.random_boxes(tower.images, 8, device)
        self.masks = image_towers.random_masks(model, tower, device)

    def single_calls(self, model: RegionModel) -> dict[str, Tensor]:
        """Compute each feature by the function that users call for it."""
        images, boxes, masks = self.images, self.boxes, self.masks
        with torch.no_grad():
            return {
                "image": model.encode_image(images),
                "dense": model.encode_dense(images),
                "dense_value": model.encode_dense(images, readout="value"),
                "boxes": model.encode_boxes(images, boxes),
                "boxes_value": model.encode_boxes(images, boxes, readout="value"),
                "boxes_attention": model.encode_boxes(images, boxes, mode="attention"),
                "masks": model.encode_masks(images, masks),
                "masks_attention": model.encode_masks(images, masks, mode="attention"),
            }

    def one_call(self, model: RegionModel) -> dict[str, Tensor]:
        """Compute all of them in one forward."""
        with torch.no_grad():
            return model.encode_regions(self.images, self.boxes, self.masks, OUTPUTS)


def check_spread(part: Part, tower: ImageTower, dense: Tensor) -> None:
    """Make sure that patches differ: were they all alike, no check below could fail."""
    patches = dense.flatten(2)[0].T  # (N, C)
    order = torch.randperm(len(patches), generator=torch.Generator().manual_seed(0))
    other = patches[order.to(patches.device)]
    cosine = (patches * other).sum(1).mean().item()
    part.within(f"{tower.name}: patches differ, mean cosine of two", cosine, 0.9)


def check_against_cpu(
    part: Part, tower: ImageTower, model: RegionModel, features: dict[str, Tensor]
) -> None:
    """Compare with one forward on the CPU, in float32; a rehearsal, which is on the CPU itself,
    takes float64."""
    cpu = torch.device("cpu")
    reference = copy.deepcopy(model).to(cpu)
    inputs = Inputs(reference, tower, cpu)
    if not part.on_gpu:
        reference, inputs.images = reference.double(), inputs.images.double()
    expected = inputs.one_call(reference)

    errors = {
        name: (features[name].cpu() - wanted).abs().max().item()
        for name, wanted in expected.items()
    }
    detail = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
    part.within(
        f"{tower.name}: float32 against the CPU",
        max(errors.values()),
        float32_tolerance(model),
        detail,
    )


def check_16_bits(
    part: Part,
    title: str,
    model: RegionModel,
    inputs: Inputs,
    features: dict[str, Tensor],
    dtype: torch.dtype,
) -> None:
    """Compare weights and features in 16 bits with float32 on the same device."""
    found = inputs.one_call(copy.deepcopy(model).to(dtype))
    wrong = [f"{name} is {value.dtype}" for name, value in found.items() if value.dtype != dtype]
    part.check(f"{title}: features have the dtype of the weights", not wrong, "; ".join(wrong))
    check_cosines(part, title, model, found, features, dtype)


def check_autocast(
    part: Part, title: str, model: RegionModel, inputs: Inputs, features: dict[str, Tensor]
) -> None:
    """Compare float32 weights under bfloat16 autocast, as training runs them."""
    with torch.autocast(part.device.type, torch.bfloat16):
        found = inputs.one_call(model)
    check_cosines(part, title, model, found, features, torch.bfloat16)


def check_cosines(
    part: Part,
    title: str,
    model: RegionModel,
    found: dict[str, Tensor],
    wanted: dict[str, Tensor],
    dtype: torch.dtype,
) -> None:
    """Report the cosines with float32: of the patches their mean and 1st percentile, of the others
    the lowest mean."""
    expected = ROUNDINGS_PER_BLOCK * model.num_blocks * UNIT[dtype] ** 2 / 2
    # The features themselves are rounded to 16 bits once more.
    allowed = MARGIN * (expected + UNIT[dtype] ** 2)

    means = {}
    for name, value in found.items():
        cosines = F.cosine_similarity(value.double(), wanted[name].double(), dim=1).flatten()
        means[name] = cosines.mean().item()
        if name == "dense":
            low = cosines.quantile(0.01).item()
            part.at_least(f"{title}: patches, mean cosine", means[name], 1 - allowed)
            part.at_least(f"{title}: patches, 1st percentile", low, 1 - PERCENTILE_MARGIN * allowed)

    if len(means) > 1:
        detail = ", ".join(f"{name} 1 - {1 - mean:.1e}" for name, mean in means.items())
        part.at_least(
            f"{title}: every feature, lowest mean cosine", min(means.values()), 1 - allowed, detail
        )


def check_checkpointing(part: Part, tower: ImageTower) -> None:
    """Compare loss and gradients with and without checkpointing, and with the CPU."""
    tower = replace(tower, image_px=min(tower.image_px, 448))
    model = tower.build(part.device).train()
    kept, size, kept_grads = loss_and_gradients(model, tower)
    model.set_grad_checkpointing(True)
    again, _, again_grads = loss_and_gradients(model, tower)

    # The same kernels on the same numbers; only sums by atomic additions may come in another order.
    same = 10 * UNIT[torch.float32]
    part.within("checkpointing: loss", abs(kept - again) / size, same)
    part.within("checkpointing: gradients", largest_gap(again_grads, kept_grads), 1e-5)
    part.check(
        "checkpointing: every weight has its gradient",
        len(kept_grads) > 10 and kept_grads.keys() == again_grads.keys(),
    )

    reference = copy.deepcopy(model).cpu()
    if not part.on_gpu:
        reference = reference.double()
    wanted, _, wanted_grads = loss_and_gradients(reference, tower)
    # Two passes through the tower, and sums over every patch: ten times what a forward is allowed.
    allowed = 10 * float32_tolerance(model)
    part.within("gradients against the CPU: loss", abs(kept - wanted) / size, allowed)
    part.within(
        "gradients against the CPU: gradients", largest_gap(kept_grads, wanted_grads), allowed
    )


def loss_and_gradients(
    model: RegionModel, tower: ImageTower
) -> tuple[float, float, dict[str, Tensor]]:
    """Compute a loss on every kind of region feature, its size, and the gradient of every weight of
    the image tower.

    The loss is a sum of terms of both signs, and may come out near zero by chance. Its size is the
    square root of the sum of their squares: what such a sum typically is, and what its rounding
    errors are a share of.
    """
    inputs = Inputs(model, tower, model.device)
    images = inputs.images.to(model.dtype)
    model.zero_grad(set_to_none=True)
    found = model.encode_regions(images, inputs.boxes, inputs.masks, OUTPUTS)

    loss = torch.zeros((), device=model.device, dtype=model.dtype)
    squares = 0.0
    for index, value in enumerate(found.values()):
        generator = torch.Generator().manual_seed(index)
        direction = torch.randn(value.shape, generator=generator).to(value)
        terms = value * direction / len(value)
        loss = loss + terms.sum()
        squares += terms.detach().square().sum().item()
    loss.backward()
    grads = {
        name: p.grad.double().cpu()
        for name, p in model.visual.named_parameters()
        if p.grad is not None
    }
    return loss.item(), math.sqrt(squares), grads


def largest_gap(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Return the largest relative distance |a - b| / |b| of two gradients of one weight, norms over
    the weight."""
    floor = 1e-4 * max(grad.norm().item() for grad in wanted.values())
    return max(
        ((found[n] - g).norm() / max(g.norm().item(), floor)).item() for n, g in wanted.items()
    )


def check_compiled(part: Part, tower: ImageTower) -> None:
    """Compare encode_dense under torch.compile with eager, in float32 and in bfloat16."""
    title = f"torch.compile of {tower.model}"
    model = tower.build(part.device)
    inputs = Inputs(model, tower, part.device)
    half = copy.deepcopy(model).to(torch.bfloat16)
    # A rehearsal traces the whole graph but leaves out the code generator, which takes half a
    # minute on a CPU.
    backend = "inductor" if part.on_gpu else "eager"

    with torch.no_grad():
        eager = model.encode_dense(inputs.images)
        # fullgraph: a break of the graph is an error.
        found, found16 = (
            torch.compile(m.encode_dense, backend=backend, fullgraph=True)(inputs.images)
            for m in (model, half)
        )
    part.close_to(f"{title}: float32", found, eager, float32_tolerance(model))
    check_cosines(
        part, f"{title}: bf16 weights", model, {"dense": found16}, {"dense": eager}, torch.bfloat16
    )


def float32_tolerance(model: RegionModel) -> float:
    """Return how far a number of a unit-length feature may be off in float32, when sums come in
    another order.

    Sums of K products in another order are off by up to u sqrt(K), five of them a block. TF32,
    whose u is 2^13 times as large, or a wrong position is farther off by a factor of a hundred.
    """
    layers = [m for m in model.visual.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    longest = max(layer.weight[0].numel() for layer in layers)
    return UNIT[torch.float32] * (ROUNDINGS_PER_BLOCK * model.num_blocks * longest) ** 0.5


def name_of(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
