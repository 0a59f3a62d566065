"""The arms of a comparison: one start, one budget, and each method with the data it is made for.

The budget of a step is the number of pixels that go through the tower that trains, forward and
backward: the pixels of CLIM's batch. The other arms get the number of images whose pixels come
closest to it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from clim_data import MosaicConfig, plan_mosaics
from clim_models import RegionModel

from clim_train.config import TrainConfig
from clim_train.experiments.comparison.data import TrainingData
from clim_train.methods.boxes import BoxDataConfig
from clim_train.methods.clim import ClimConfig
from clim_train.methods.clipself import ClipSelfConfig
from clim_train.methods.crops import CropDataConfig
from clim_train.methods.method import MethodOptions
from clim_train.methods.pairs import PairDataConfig
from clim_train.methods.regionclip import RegionClipConfig
from clim_train.methods.sources import SourceOptions
from clim_train.options.sections import (
    EngineConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
)
from clim_train.task import Task

START = "start, untrained"
MIX = {2: 1, 3: 1, 4: 1}


@dataclass(frozen=True)
class ArmOptions:
    """What all arms share, and the learning rate of each.

    Args:
        lrs: learning rate of each arm, by its name.
        batch_size: images of a step of CLIM, of which at least `min_singles` stay single. The
            number of images of the other arms follows from the budget.
        region_px: side of mosaics and scenes.
        single_px: side of an image that is not in a mosaic.
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
    device: Literal["auto", "cpu", "cuda"] = "auto"
    mix: Mapping[int, int] = field(default_factory=lambda: dict(MIX))

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: train for at least one step")

    @property
    def mosaic(self) -> MosaicConfig:
        """The layout of CLIM's batch."""
        return MosaicConfig(
            canvas_px=self.region_px,
            single_px=self.single_px,
            mix=dict(self.mix),
            min_singles=self.min_singles,
        )

    @property
    def pixels(self) -> int:
        """Pixels of a step, of CLIM's mosaics and single images."""
        plan = plan_mosaics(self.batch_size, self.mosaic)
        return len(plan.sides) * self.region_px**2 + plan.num_singles * self.single_px**2


Sections = tuple[MethodOptions, SourceOptions]


@dataclass(frozen=True)
class Arm:
    """A method with its data: one way to train from the start weights.

    Args:
        title: its row in the tables.
        learns_from: its supervision, for the table of budgets.
        sections: `sections(options, data, labels, batch)` returns the sections `task` and `data` of
            the run. labels: COCO json with pseudo labels. batch: the options that every kind of
            data has.
        side: `single_px` or `region_px`, the side of the images of a step. None: CLIM's batch.
        same_images: the budget is CLIM's number of images instead of its number of pixels.
        task: `task(options, model)` builds another task than the method.
        needs_labels: whether it trains on pseudo labels.
        short_title: its name in the rows of weights mixed with the start; default: `title`.
    """

    title: str
    learns_from: str
    sections: Callable[[ArmOptions, TrainingData, Path, Mapping[str, Any]], Sections]
    side: Literal["single_px", "region_px"] | None
    same_images: bool = False
    task: Callable[[Any, RegionModel], Task] | None = None
    needs_labels: bool = False
    short_title: str = ""

    def mixed_title(self, alpha: float) -> str:
        """Return the title of the row of its weights mixed with the start."""
        return f"{self.short_title or self.title}, alpha {alpha:g}"

    def images(self, options: ArmOptions) -> int:
        """Return the number of images of a step."""
        if self.side is None or self.same_images:
            return options.batch_size
        side = getattr(options, self.side)
        return max(1, round(options.pixels / side**2))

    def pixels(self, options: ArmOptions) -> int:
        """Return the pixels of a step, which differ from the budget by at most half an image."""
        if self.side is None:
            return options.pixels
        side = getattr(options, self.side)
        return self.images(options) * side**2


def clim_sections(
    options: ArmOptions, data: TrainingData, labels: Path, batch: Mapping[str, Any]
) -> Sections:
    task = ClimConfig(mask_duplicate_captions=options.mask_duplicate_captions)
    return task, PairDataConfig(**_sources(data.pairs), mosaic=options.mosaic, **batch)


def image_sections(
    options: ArmOptions, data: TrainingData, labels: Path, batch: Mapping[str, Any]
) -> Sections:
    singles = dataclasses.replace(options.mosaic, mix={}, min_singles=0)
    task = ClimConfig(mask_duplicate_captions=options.mask_duplicate_captions)
    return task, PairDataConfig(**_sources(data.pairs), mosaic=singles, **batch)


def _clipself(
    options: ArmOptions, data: TrainingData, labels: Path, batch: Mapping[str, Any]
) -> Sections:
    listed = str(data.listed) if data.listed is not None else None
    scenes = _sources(data.scenes)
    return ClipSelfConfig(), CropDataConfig(
        **scenes, images_json=listed, image_px=options.region_px, **batch
    )


def _clipself_boxes(
    options: ArmOptions, data: TrainingData, labels: Path, batch: Mapping[str, Any]
) -> Sections:
    scenes = _sources(data.scenes)
    return ClipSelfConfig(), CropDataConfig(
        **scenes, boxes=str(data.proposals), image_px=options.region_px, **batch
    )


def _regionclip(
    options: ArmOptions, data: TrainingData, labels: Path, batch: Mapping[str, Any]
) -> Sections:
    task = RegionClipConfig(embeddings=str(data.nouns), sampled_classes=options.sampled_classes)
    scenes = _sources(data.scenes)
    return task, BoxDataConfig(**scenes, boxes=str(labels), image_px=options.region_px, **batch)


def _sources(paths: tuple[str, ...]) -> dict[str, Any]:
    """Return one folder of image files, or shards, as the options of a data section."""
    folder = Path(paths[0])
    if len(paths) == 1 and folder.is_dir() and not any(folder.glob("*.tar")):
        return {"images": paths[0]}
    return {"shards": tuple(paths)}


ARMS: Mapping[str, Arm] = {
    "image": Arm("image-level only", "image-caption pairs", image_sections, side="single_px"),
    "clim": Arm("CLIM", "the same image-caption pairs", clim_sections, side=None),
    "clipself": Arm(
        "CLIPSelf, grid cells",
        "scenes, no text, no boxes",
        _clipself,
        side="region_px",
    ),
    "clipself_boxes": Arm(
        "CLIPSelf, boxes",
        "the same scenes and their boxes, no text",
        _clipself_boxes,
        side="region_px",
    ),
    "regionclip": Arm(
        "RegionCLIP-style",
        "the same scenes and boxes; the start model chose each box's noun from the captions",
        _regionclip,
        side="region_px",
        needs_labels=True,
    ),
}


def arm_config(
    arm: Arm,
    lr: float,
    options: ArmOptions,
    data: TrainingData,
    *,
    labels: Path,
    folder: Path,
    seed: int,
) -> TrainConfig:
    """Return the run of one arm.

    Args:
        labels: COCO json of boxes with pseudo labels, for arms that need them.
    """
    batch = {
        "batch_size": arm.images(options),
        "workers": options.workers,
        "background": options.background,
    }
    task, source = arm.sections(options, data, labels, batch)
    on_gpu = torch.cuda.is_available() and options.device != "cpu"

    return TrainConfig(
        model=options.model,
        data=source,
        task=task,
        optim=dataclasses.replace(options.optim, lr=lr),
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
