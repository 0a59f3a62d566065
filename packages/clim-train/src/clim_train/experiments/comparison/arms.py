"""The arms of a comparison: one start, one budget of steps and pixels, and each method with the
data it is made for.

The budget of a step is the number of pixels that go through the tower that trains, forward and
backward: that of CLIM's batch. The other arms get as many images of their size as come closest to
it.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from clim_data import MosaicConfig, plan_mosaics

from clim_train.config import TrainConfig
from clim_train.experiments.comparison.data import TrainingData
from clim_train.methods.boxes import BoxDataConfig
from clim_train.methods.clim import ClimConfig
from clim_train.methods.clipself import ClipSelfConfig
from clim_train.methods.crops import CropDataConfig
from clim_train.methods.pairs import PairDataConfig
from clim_train.methods.regionclip import RegionClipConfig
from clim_train.options.sections import (
    EngineConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
)

START = "start, untrained"
ARMS = {
    "image": "image-level only",
    "clim": "CLIM",
    "clipself": "CLIPSelf, grid cells",
    "clipself_boxes": "CLIPSelf, boxes",
    "regionclip": "RegionCLIP-style",
}
MIX = {2: 1, 3: 1, 4: 1}


@dataclass(frozen=True)
class ArmOptions:
    """What all arms share, and the learning rate of each.

    batch_size: images of a step of CLIM, of which at least `min_singles` stay single; the rest
    follows from the budget. region_px: side of mosaics and scenes. single_px: side of an image that
    is alone.
    """

    model: ModelConfig
    optim: OptimConfig
    lrs: Mapping[str, float]
    steps: int = 250
    batch_size: int = 144
    min_singles: int = 57
    region_px: int = 192
    single_px: int = 64
    mask_duplicate_captions: bool = True
    background: str = "random"
    workers: int = 0
    sampled_classes: int | None = 100
    device: str = "auto"
    mix: Mapping[int, int] = field(default_factory=lambda: dict(MIX))

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: train for at least one step")
        if unknown := sorted(set(self.lrs) - set(ARMS)):
            raise ValueError(f"learning rates of {unknown}: the arms are {', '.join(ARMS)}")

    @property
    def mosaic(self) -> MosaicConfig:
        """How CLIM's batch is laid out."""
        return MosaicConfig(
            canvas_px=self.region_px,
            single_px=self.single_px,
            mix=dict(self.mix),
            min_singles=self.min_singles,
        )

    @property
    def pixels(self) -> int:
        """Pixels per step: those of CLIM's mosaics and single images."""
        plan = plan_mosaics(self.batch_size, self.mosaic)
        return len(plan.sides) * self.region_px**2 + plan.num_singles * self.single_px**2

    def images(self, arm: str) -> int:
        """Images of a step of an arm."""
        if arm == "clim":
            return self.batch_size
        side = self.single_px if arm == "image" else self.region_px
        return max(1, round(self.pixels / side**2))

    def pixels_of(self, arm: str) -> int:
        """Pixels per step of an arm, at most half an image away from `pixels`."""
        if arm == "clim":
            return self.pixels
        return self.images(arm) * (self.single_px if arm == "image" else self.region_px) ** 2


def arm_config(
    arm: str, options: ArmOptions, data: TrainingData, *, labels: Path, folder: Path, seed: int
) -> TrainConfig:
    """The run of one arm. labels: COCO json of the boxes with pseudo labels, for "regionclip".

    Raises ValueError for an unknown arm.
    """
    if arm not in ARMS:
        raise ValueError(f"arm={arm!r} is unknown: choose from {', '.join(ARMS)}")
    batch = {
        "batch_size": options.images(arm),
        "workers": options.workers,
        "background": options.background,
    }
    task, source = _method(arm, options, data, labels, batch)
    on_gpu = torch.cuda.is_available() and options.device != "cpu"
    return TrainConfig(
        model=options.model,
        data=source,
        task=task,
        optim=dataclasses.replace(options.optim, lr=options.lrs[arm]),
        schedule=ScheduleConfig(
            kind="cosine", steps=options.steps, warmup_steps=min(1000, max(1, options.steps // 10))
        ),
        engine=EngineConfig(precision="amp_bf16" if on_gpu else "fp32", device=options.device),
        run=RunConfig(
            folder=str(folder),
            seed=seed,
            save_every=min(options.steps, 1000),
            log_every=5,
            tensorboard=False,
        ),
    )


def _method(arm: str, options: ArmOptions, data: TrainingData, labels: Path, batch: dict):
    """(task, data) of an arm; `batch` are the options that every kind of data has."""
    if arm in ("image", "clim"):
        mosaic = (
            options.mosaic
            if arm == "clim"
            else dataclasses.replace(options.mosaic, mix={}, min_singles=0)
        )
        task = ClimConfig(mask_duplicate_captions=options.mask_duplicate_captions)
        return task, PairDataConfig(**_sources(data.pairs), mosaic=mosaic, **batch)
    scenes = {**_sources(data.scenes), "image_px": options.region_px, **batch}
    if arm == "regionclip":
        task = RegionClipConfig(embeddings=str(data.nouns), sampled_classes=options.sampled_classes)
        return task, BoxDataConfig(**scenes, boxes=str(labels))
    if arm == "clipself_boxes":
        return ClipSelfConfig(), CropDataConfig(**scenes, boxes=str(data.proposals))
    listed = str(data.listed) if data.listed is not None else None
    return ClipSelfConfig(), CropDataConfig(**scenes, images_json=listed)


def _sources(paths: tuple[str, ...]) -> dict:
    """One folder of image files, or shards, as the options of a data configuration."""
    folder = Path(paths[0])
    if len(paths) == 1 and folder.is_dir() and not any(folder.glob("*.tar")):
        return {"images": paths[0]}
    return {"shards": tuple(paths)}
