"""Parts that all detectors on a frozen tower share: options, classes, and the task.

Letters: B images, K classes, C embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from clim_data import DetectionBatch
from clim_models.detection import (
    Annotations,
    BoxMasks,
    ClassSet,
    DetectorOptions,
    TwoStageDetector,
    largest_losses,
    prepare_views,
    save_detector,
)
from torch import Tensor, nn

from clim_train.methods.class_embeddings import class_embeddings
from clim_train.methods.method import BuildContext, MethodOptions
from clim_train.methods.region_parts import rows_per_rank
from clim_train.methods.shared_norms import share_norms
from clim_train.methods.views import DetectionDataConfig
from clim_train.options.checks import check_choice, check_default, reject
from clim_train.options.paths import PATH
from clim_train.options.sections import EngineConfig

if TYPE_CHECKING:
    from clim_models import RegionModel

# Scalars of a step that are not losses.
FIGURES = ("acc",)
# Name whose embedding stands for the background.
BACKGROUND = "background"
# Classes of the official files, for tasks that only have shapes.
COCO_CLASSES, LVIS_CLASSES = 80, 1203


@dataclass(frozen=True)
class DetectorConfig(MethodOptions):
    """Options of the detectors on a frozen tower."""

    blocks: tuple[int, ...] = ()
    """Four blocks of the tower whose maps are read, from 0. () takes those of the paper, for ViTs
    of 12 or 24 blocks, and the four stages of a ResNet."""
    embeddings: str | None = field(default=None, metadata=PATH)
    """Class embeddings of `clim-eval embed`, with a row for "background" where that is a text; None
    embeds the names with the model's own text tower."""
    templates: Literal["vild", "photo", "name"] = "vild"
    """Prompts for the names where `embeddings` is None."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "task", "templates")
        if self.embeddings is not None:
            check_default(self, "task", ("templates",), "it without task.embeddings, for names")
        if self.blocks and len(self.blocks) != 4:
            reject("task.blocks", self.blocks, "four numbers, or none for those of the paper")


def check_masks(name: str, preset: DetectorOptions, data: DetectionDataConfig) -> None:
    """Raise ValueError where a detector has a mask head and its data no masks, or the reverse."""
    if preset.masks and not data.masks:
        legal = f"--data.masks with task.detector {name!r}, which has a mask head"
        reject("data.masks", data.masks, legal)
    if data.masks and not preset.masks:
        legal = f"--data.no-masks with task.detector {name!r}, which has no mask head"
        reject("data.masks", data.masks, legal)


def class_set(
    options: DetectorConfig,
    model: "RegionModel",
    context: BuildContext[DetectionDataConfig],
    *,
    background: bool,
) -> tuple[ClassSet, Tensor | None]:
    """Embed the classes of the loader, of which those with boxes are base classes.

    Where only shapes count, there are as many classes as the official file has, and nothing is
    embedded.

    Args:
        background: whether the word for the background is embedded, too.

    Returns:
        The classes, and the background (C,) or None.
    """
    if context.class_names is None:
        count = LVIS_CLASSES if context.data.frequencies else COCO_CLASSES
        rows = torch.ones(count + 1, model.embed_dim)
        classes = ClassSet([str(i) for i in range(count)], rows[:-1], range(count))
        return classes, rows[-1] if background else None

    return embed_classes(
        model, context, file=options.embeddings, templates=options.templates, background=background
    )


def embed_classes(
    model: "RegionModel",
    context: BuildContext[Any],
    *,
    file: str | None,
    templates: str,
    background: bool = False,
) -> tuple[ClassSet, Tensor | None]:
    """Embed the classes of the loader; those with boxes are base classes.

    Args:
        file, templates: the options `embeddings` and `templates` of the method.
        background: whether the word for the background is embedded, too.

    Returns:
        The classes, and the background (C,) or None.
    """
    assert context.class_names is not None
    names = list(context.class_names)
    rows = class_embeddings(
        model,
        [*names, BACKGROUND] if background else names,
        file=file,
        templates=templates,
        device=context.device,
    )
    trained = set(context.trained_names or names)
    base = [label for label, name in enumerate(names) if name in trained]
    return ClassSet(names, rows[: len(names)], base), rows[-1] if background else None


def check_stage(engine: EngineConfig) -> None:
    """Raise ValueError for ZeRO-3. The heads of a detector that run depend on the boxes of a rank,
    and ranks that gather different weights wait for each other for ever."""
    if engine.zero_stage == 3:
        legal = "0, 1 or 2 (and sharded_stage 1 or 2): what trains of a detector fits one GPU"
        reject("engine.zero_stage", engine.zero_stage, legal)


class DetectorTask:
    """Losses of proposals, boxes and masks, as the detector gives them.

    Only the detector's own parts train; the tower has no gradient. With several ranks, batch norms
    have the statistics of all images of a step, and sums of losses are divided by the mean number
    of rows of the ranks: gradients are those of one process with all images.

    Args:
        detector: its base classes are those of the loader.
        only_shapes: losses are those of `largest_losses`, for an estimate.
    """

    def __init__(self, detector: TwoStageDetector, *, only_shapes: bool = False) -> None:
        share_norms(detector, leave=detector.backbone.model)
        self.model = detector
        self._only_shapes = only_shapes

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters outside the tower."""
        tower = {id(p) for p in self.model.backbone.model.parameters()}
        return {name: p for name, p in self.model.named_parameters() if id(p) not in tower}

    def loss(self, batch: DetectionBatch) -> dict[str, Tensor]:
        """Return "loss", its parts, and "acc", the accuracy in percent."""
        images, limits = prepare_views(batch.images, batch.windows, self.model.rules.images)
        if self._only_shapes:
            self.model.train()
            found = largest_losses(self.model, images)
        else:
            rows = partial(rows_per_rank, device=images.device)
            found = self.model.losses(images, limits, annotations(batch), divisor=rows)

        losses = {name: value.sum() for name, value in found.items()}
        parts = [value for name, value in losses.items() if name not in FIGURES]
        return {"loss": torch.stack(parts).sum(), **losses}

    def save(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Write the detector for `clim_models.detection.open_detector`."""
        save_detector(self.model, folder, state)


def annotations(batch: DetectionBatch) -> list[Annotations]:
    """Return the boxes, labels and masks of each image of a batch."""
    size = (batch.images.shape[2], batch.images.shape[3])
    pixels: Sequence[Tensor | None] = batch.masks or [None] * len(batch)
    found = []
    for boxes, labels, own in zip(batch.boxes, batch.labels, pixels, strict=True):
        masks = None if own is None else BoxMasks(boxes, own, size)
        found.append(Annotations(boxes, labels, masks))
    return found
