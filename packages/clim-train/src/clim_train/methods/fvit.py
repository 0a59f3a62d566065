"""F-ViT (arXiv 2310.01403): an open-vocabulary detector on a frozen tower, trained on boxes of base
classes.

Letters: B images, K classes, C embedding.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from clim_data import DetectionBatch
from clim_data.processes import Ranks
from clim_models.detection import (
    FVIT_PRESETS,
    Annotations,
    ClassSet,
    TwoStageDetector,
    build_fvit,
    prepare_views,
    save_detector,
)
from torch import Tensor, nn

from clim_train.methods.class_embeddings import class_embeddings
from clim_train.methods.method import SMALL_BATCHES, BuildContext, Method, MethodOptions
from clim_train.methods.views import VIEWS, DetectionDataConfig
from clim_train.options.checks import check_choice, check_default, reject
from clim_train.options.paths import PATH

if TYPE_CHECKING:
    from clim_models import RegionModel

# What is no loss among the scalars of a step.
FIGURES = ("acc",)
# Name that the background is embedded by.
BACKGROUND = "background"


@dataclass(frozen=True)
class FViTConfig(MethodOptions):
    """F-ViT: neck, proposals and box head on a frozen tower, classified by text embeddings."""

    name: Literal["fvit"] = "fvit"
    blocks: tuple[int, ...] = ()
    """Four blocks of the tower whose maps are read, from 0. () takes those of the paper, for towers
    of 12 or 24 blocks."""
    embeddings: str | None = field(default=None, metadata=PATH)
    """Class embeddings of `clim-eval embed`, with a row for "background"; None embeds the names
    with the model's own text tower."""
    templates: Literal["vild", "photo", "name"] = "vild"
    """Prompts for the names where `embeddings` is None."""
    original: bool = False
    """Normalise images with ImageNet's statistics, as the released code does, in place of the
    tower's own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "task", "templates")
        if self.embeddings is not None:
            check_default(self, "task", ("templates",), "it without task.embeddings, for names")
        if self.blocks and len(self.blocks) != 4:
            reject("task.blocks", self.blocks, "four numbers, or none for those of the paper")


class FViTTask:
    """Losses of proposals and boxes, as the detector gives them.

    Only the detector's own parts train; the tower has no gradient. Each loss is divided on its own
    rank, and gradients are averaged over ranks, as in the original.

    Args:
        detector: of `build_fvit`; its base classes are those of the loader.
    """

    def __init__(self, detector: TwoStageDetector) -> None:
        self.model = detector

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return everything but the tower."""
        tower = {id(p) for p in self.model.backbone.model.parameters()}
        return {name: p for name, p in self.model.named_parameters() if id(p) not in tower}

    def loss(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """Return "loss", its parts, and "acc", the accuracy in percent."""
        images, limits = prepare_views(batch.images, batch.windows, self.model.rules.images)
        truths = [
            Annotations(boxes, labels)
            for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
        ]
        losses = {
            name: value.sum() for name, value in self.model.losses(images, limits, truths).items()
        }
        parts = [value for name, value in losses.items() if name not in FIGURES]
        return {"loss": torch.stack(parts).sum(), **losses}

    def save(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Write the detector for `clim_models.detection.load_detector`."""
        save_detector(self.model, folder, state)


def build_fvit_task(
    options: FViTConfig, model: "RegionModel", context: BuildContext[DetectionDataConfig]
) -> FViTTask:
    """Build F-ViT with the embeddings of the loader's classes.

    Raises ValueError where only shapes are known: the work of a step depends on its proposals.
    """
    if context.class_names is None:
        raise ValueError(
            "a step of a detector cannot be traced without data, because its work depends on the "
            "proposals: measure a few steps with --schedule.steps 20 instead"
        )
    names = list(context.class_names)
    rows = class_embeddings(
        model,
        [*names, BACKGROUND],
        file=options.embeddings,
        templates=options.templates,
        device=context.device,
    )
    base = context.data.base_names() or names
    classes = ClassSet(names, rows[:-1], [names.index(name) for name in base])

    detector = build_fvit(
        model,
        classes,
        replace(
            FVIT_PRESETS["fvit-coco-b16"],
            image_size=context.data.image_px,
            blocks=options.blocks or None,
            original=options.original,
        ),
        background=rows[-1],
    )
    if Ranks.of_group().world_size > 1:
        nn.SyncBatchNorm.convert_sync_batchnorm(detector)
    return FViTTask(detector)


FVIT = Method(
    name="fvit",
    options=FViTConfig,
    data=VIEWS,
    build=build_fvit_task,
    gradient_path=lambda options, data: "dense",
    micro_batch=SMALL_BATCHES,
)
