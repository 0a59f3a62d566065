"""A training step never waits for the GPU: loss, backward, engine step and metrics, as `Trainer`
takes it."""

from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import torch
from clim_models import RegionModel
from clim_train import TrainConfig, build_loader, build_task
from clim_train.engine import Engine, start_distributed
from clim_train.options import choose_device
from clim_train.run import FiniteWatch, RunningMean, to_device
from torch._subclasses.fake_tensor import FakeTensorMode

from gpu_parts.no_sync import check_no_sync, to_fake_gpu, watch
from gpu_parts.record import Part
from gpu_parts.training_cases import (
    METHODS,
    THINGS,
    make_model,
    method_config,
    with_engine,
    write_photos,
)

# Where DeepSpeed (0.19) itself waits, in every step and whatever the task is. Nothing else may.
NORM = {
    "utils.py:is_invalid_grad_norm": "ZeRO leaves out a step whose gradient is not finite (all precisions but bf16)",
    "utils.py:mask_nan_or_inf_with_val_inplace": "ZeRO marks a norm of the gradient that is not finite by -1",
}
OVERFLOW = {
    "stage_1_and_2.py:has_overflow": "ZeRO looks for gradients that are not finite (in fp16 they set the loss scale)",
}
STAGE_3 = {
    "stage3.py:_overflow_check_and_loss_scale_update": "stage 3 looks for gradients that are not finite",
    "stage3.py:independent_gradient_partition_epilogue": "stage 3 waits once for its exchange of gradients",
    "stage3.py:get_grad_norm_direct": "stage 3 begins the norm of the gradient with a number from the host",
    "partitioned_param_coordinator.py:fetch_sub_module": "stage 3: weights are fetched a bounded number of steps ahead",
    "partition_parameters.py:wait": "stage 3: a weight is there when it is used",
}

# Boxes on a CPU are looked at, because that costs nothing; on a GPU they are not.
ON_CPU = {"pooling.py:check_boxes": "the range of boxes that are on the CPU"}

ENGINES: tuple[tuple[str, dict[str, Any], Mapping[str, str]], ...] = (
    ("amp_bf16, stage 0", {"precision": "amp_bf16", "zero_stage": 0}, {}),
    ("amp_bf16, stage 1", {"precision": "amp_bf16", "zero_stage": 1}, NORM),
    ("bf16, stage 2", {"precision": "bf16", "zero_stage": 2}, NORM | OVERFLOW),
    ("fp16, stage 2", {"precision": "fp16", "zero_stage": 2}, NORM | OVERFLOW),
    ("bf16, stage 3", {"precision": "bf16", "zero_stage": 3}, NORM | STAGE_3),
)


def training_step(part: Part) -> None:
    """Watch a step of each method; CLIM also at the other stages and precisions, which have places
    of DeepSpeed."""
    photos = write_photos(
        part.folder / "photos", 12 if part.tiny else 64, (48, 64) if part.tiny else (480, 640)
    )
    for method in METHODS:
        config = method_config(method, part, photos)
        if not part.on_gpu:
            with part.guarded(f"training step: {method}"):
                watch_loss(part, config)
            with part.guarded(f"training step on shapes of a GPU: {method}"):
                watch_shapes(part, config)
            continue
        model = make_model(config, part.device)  # an engine gives it back whole
        for name, engine, allowed in ENGINES if method == "clim" else ENGINES[:1]:
            with part.guarded(f"training step: {method}, {name}"):
                watch_engine(
                    part,
                    model,
                    with_engine(config, **engine),
                    f"training step: {method}, {name}",
                    allowed,
                )
    if not part.on_gpu:
        part.check("training step: the engine (needs a GPU)", True, "not run on a CPU")


def watch_engine(
    part: Part, model: RegionModel, config: TrainConfig, name: str, allowed: Mapping[str, str]
) -> None:
    """Watch the whole step, from the batch in memory to the sums of the metrics."""
    start_distributed(choose_device(config.engine))
    batch = next(iter(build_loader(config)))
    engine = Engine(build_task(config, model, THINGS), config, device=part.device)
    means, finite = RunningMean(), FiniteWatch()

    def step() -> None:
        moved = to_device(batch, part.device)
        scalars = engine.forward_backward(moved)
        finite.add(1, scalars["loss"], moved)
        means.add(scalars)
        engine.step(1e-5)

    try:
        check_no_sync(part, name, step, allowed)
    finally:
        engine.close()


def watch_loss(part: Part, config: TrainConfig) -> None:
    """On a CPU: loss and backward alone, since DeepSpeed and AdamW read numbers there that they do
    not on a GPU."""
    task = build_task(config, make_model(config, part.device), THINGS)
    batch = next(iter(build_loader(config)))
    task.loss(batch)  # text features are kept from now on
    means, finite = RunningMean(), FiniteWatch()

    def step() -> None:
        scalars = task.loss(batch)
        scalars["loss"].backward()
        finite.add(1, scalars["loss"], batch)
        means.add({key: value.detach() for key, value in scalars.items()})

    check_no_sync(part, f"training step: {config.task.name}: loss and metrics", step, ON_CPU)


def watch_shapes(part: Part, config: TrainConfig) -> None:
    """Tensors that only stand for shapes on a GPU: every copy from the host shows, whatever the
    size of the batch."""
    task = build_task(config, make_model(config, part.device), THINGS)
    batch = next(iter(build_loader(config)))
    task.loss(batch)

    with FakeTensorMode(), torch.no_grad():
        to_fake_gpu(task.model)
        if hasattr(task, "teacher"):
            to_fake_gpu(task.teacher)
        if hasattr(task, "class_embeddings"):
            task.class_embeddings = torch.empty(task.class_embeddings.shape, device="cuda")
        if hasattr(task, "text_features"):
            kept = task.text_features._kept
            kept.update(
                (caption, torch.empty(row.shape, device="cuda"))
                for caption, row in list(kept.items())
            )
        moved = batch._with_tensors(lambda t: torch.empty(t.shape, dtype=t.dtype, device="cuda"))
        # Shapes cannot be pinned. That a copy is pinned and does not wait is a test of `to_device`.
        pinned = patch.object(torch.Tensor, "pin_memory", lambda tensor: tensor)
        with pinned, watch(torch.device("cpu")) as places:
            loss = task.loss(moved)["loss"]
            FiniteWatch().add(1, loss, moved)
    found = [
        *places.found,
        *([] if loss.device.type == "cuda" else [f"the loss is on {loss.device}"]),
    ]
    part.check(f"training step on shapes of a GPU: {config.task.name}", not found, "; ".join(found))
