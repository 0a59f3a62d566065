"""No hidden synchronisation: a dense forward, features of boxes and masks, and a training step
never wait for the GPU.

On any machine the calls also run on weights and images that only stand for shapes on a GPU: that
shows each copy which waits and each operator with inputs on two devices, also those that a small
batch would hide.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from clim_models import RegionModel
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from gpu_parts import image_towers
from gpu_parts.image_towers import ImageTower
from gpu_parts.no_sync import check_no_sync, to_fake_gpu, watch
from gpu_parts.record import Part

# Boxes on a CPU are looked at, because that costs nothing; on a GPU they are not.
ON_CPU = {"pooling.py:check_boxes": "the range of boxes that are on the CPU"}

Calls = dict[str, Callable[[], Any]]


def run(part: Part) -> None:
    tiny = image_towers.tiny()

    for tower in (
        tiny if part.tiny else (image_towers.EVA_B, image_towers.VIT_B, image_towers.RESNET)
    ):
        with part.guarded(f"no waiting: {tower.name}"):
            check_features(part, tower)

    for tower in tiny:
        with part.guarded(f"shapes on a GPU: {tower.name}"):
            check_shapes(part, tower)

    with part.guarded("training step"):
        import_module("gpu_parts.sync_step").training_step(part)


def check_features(part: Part, tower: ImageTower) -> None:
    """Watch every call on real data on the part's device."""
    model = tower.build(part.device)
    images = image_towers.structured_images(tower, part.device)
    boxes = image_towers.random_boxes(tower.images, 5, part.device)
    masks = image_towers.random_masks(model, tower, part.device)

    calls = feature_calls(model, images, boxes, masks)
    with torch.no_grad():
        check_no_sync(
            part,
            f"no waiting: {tower.name}: {len(calls)} calls",
            lambda: [call() for call in calls.values()],
            {} if part.on_gpu else ON_CPU,
        )


def check_shapes(part: Part, tower: ImageTower) -> None:
    """Watch every call on shapes of a GPU, with regions on the GPU and on the CPU."""
    cpu = torch.device("cpu")
    model = tower.build(cpu)
    images = image_towers.structured_images(tower, cpu)
    boxes = image_towers.random_boxes(tower.images, 5, cpu)
    masks = image_towers.random_masks(model, tower, cpu)

    with FakeTensorMode(), torch.no_grad():
        to_fake_gpu(model)
        images = torch.empty(images.shape, device="cuda")
        found: list[str] = []
        for where in ("cuda", "cpu"):
            regions = [
                [torch.empty(r.shape, dtype=r.dtype, device=where) for r in rs]
                for rs in (boxes, masks)
            ]
            for name, call in feature_calls(model, images, *regions).items():
                with watch(cpu) as places:
                    features = call()
                found += [f"{name}, regions on {where}: {place}" for place in places.found]
                if features.device.type != "cuda":
                    found.append(f"{name}: the features are on {features.device}")
    part.check(f"shapes on a GPU: {tower.name}", not found, "; ".join(found))


def feature_calls(
    model: RegionModel, images: Tensor, boxes: list[Tensor], masks: list[Tensor]
) -> Calls:
    """Every way to ask for features, by name."""
    return {
        "encode_image": lambda: model.encode_image(images),
        "encode_dense": lambda: model.encode_dense(images),
        "encode_dense value": lambda: model.encode_dense(images, readout="value"),
        "encode_boxes align": lambda: model.encode_boxes(images, boxes),
        "encode_boxes attention": lambda: model.encode_boxes(images, boxes, mode="attention"),
        "encode_masks mean": lambda: model.encode_masks(images, masks),
        "encode_masks attention": lambda: model.encode_masks(images, masks, mode="attention"),
    }
