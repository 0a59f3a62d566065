"""What the tests of CLIPSelf and RegionCLIP-style training train: a loader of boxed noise, tasks,
short runs."""

import dataclasses

import torch
from clim_data import BoxBatch, CropBatch
from clim_train import (
    BoxDataConfig,
    ClipSelfConfig,
    ClipSelfTask,
    CropDataConfig,
    RegionClipConfig,
    RegionClipTask,
    TrainConfig,
    Trainer,
)
from tiny_training import VIT, box_unit, class_embeddings, crop_unit, tiny_config, tiny_model

REGION_METHODS = ("clipself", "regionclip")
CLASSES = 30
# Boxes in the two images of each of two ranks, step by step: unequal, and none at all on the
# second.
COUNTS = (((3, 1), (1, 0)), ((2, 2), (0, 0)), ((0, 1), (4, 3)))


def region_unit(method: str, index: int, counts: tuple[int, ...]) -> CropBatch | BoxBatch:
    """A batch of noise for a method."""
    return (
        crop_unit(index, counts)
        if method == "clipself"
        else box_unit(index, counts, classes=CLASSES)
    )


def join_regions(units: list) -> CropBatch | BoxBatch:
    """The batch of one process that has the units of several."""
    beside = "crops" if isinstance(units[0], CropBatch) else "labels"
    tensors = [torch.cat([getattr(u, name) for u in units]) for name in ("images", beside)]
    boxes, keys = ([x for u in units for x in getattr(u, name)] for name in ("boxes", "keys"))
    return type(units[0])(tensors[0], boxes, tensors[1], keys)


def region_task(
    method: str, *, name: str = VIT, box_mode: str = "align", sampled_classes: int | None = None
) -> ClipSelfTask | RegionClipTask:
    """The task of a method on a tiny tower, the same each time."""
    model = tiny_model(name)
    model.freeze(2, path="dense" if box_mode == "align" else "attention")
    if method == "clipself":
        teacher = tiny_model(name)
        with torch.no_grad():  # away from the student, whose gradients would else be small
            for p in teacher.visual.parameters():
                p.add_(torch.randn_like(p) * 0.05)
        return ClipSelfTask(model, teacher, box_mode=box_mode)
    return RegionClipTask(
        model, class_embeddings(CLASSES), box_mode=box_mode, sampled_classes=sampled_classes
    )


class RegionNoiseLoader:
    """As many batches per epoch as `COUNTS` has steps, of two units over all ranks, whatever their
    number (1 or 2)."""

    def __init__(self, method: str, rank: int = 0, world_size: int = 1):
        self.method, self.rank, self.world_size = method, rank, world_size
        self.epoch = self.position = 0

    def __len__(self):
        return len(COUNTS)

    def __iter__(self):
        epoch = self.epoch
        for i in range(self.position, len(COUNTS)):
            indexes = (2 * (epoch * len(COUNTS) + i) + k for k in range(2))
            units = [
                region_unit(self.method, n, counts)
                for n, counts in zip(indexes, COUNTS[i], strict=True)
            ]
            self.position = i + 1
            if self.position == len(COUNTS):
                self.epoch, self.position = epoch + 1, 0
            yield join_regions(units) if self.world_size == 1 else units[self.rank]

    def state_dict(self):
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state):
        self.epoch, self.position = state["epoch"], state["position"]


def region_config(method: str, folder, *, world_size: int = 1, **engine) -> TrainConfig:
    """Six steps with a checkpoint every two, every step logged."""
    images = 2 * len(COUNTS[0][0]) // world_size
    task, data = (
        (ClipSelfConfig(), CropDataConfig(batch_size=images, image_px=32, crop_px=16))
        if method == "clipself"
        else (RegionClipConfig(), BoxDataConfig(batch_size=images, image_px=32))
    )
    return dataclasses.replace(
        tiny_config(folder, world_size=world_size, **engine), task=task, data=data
    )


def region_trainer(
    config: TrainConfig, *, rank: int = 0, world_size: int = 1, resume: bool = False, **options
) -> Trainer:
    """A trainer on the tiny ViT and the noise of this rank; `options` are those of
    `region_task`."""
    method = config.task.name
    task = region_task(method, **options)
    return Trainer(config, task, RegionNoiseLoader(method, rank, world_size), resume=resume)
