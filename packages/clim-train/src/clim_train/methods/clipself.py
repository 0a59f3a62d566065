"""CLIPSelf (arXiv 2310.01403): box features follow the start model's features of the boxes' crops.

Letters: B images, n_i boxes of image i, N = sum n_i boxes of this rank, C channels, c side of a
crop.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch
from clim_data import CropBatch
from clim_models.losses import cosine_distillation
from torch import Tensor, nn

from clim_train.methods.crops import CROPS, CropDataConfig
from clim_train.methods.method import SMALL_BATCHES, BuildContext, Method
from clim_train.methods.region_parts import (
    RegionOptions,
    check_box_mode,
    pixels,
    regions_only,
    rows_per_rank,
    save_weights,
    trained_parameters,
)
from clim_train.options.checks import check_at_least, reject
from clim_train.options.device import WEIGHT_DTYPES, autocast_dtype
from clim_train.options.sections import Precision

if TYPE_CHECKING:
    from clim_models import RegionModel


@dataclass(frozen=True)
class ClipSelfConfig(RegionOptions):
    """CLIPSelf: box features of the dense map follow the start model's features of the boxes'
    crops."""

    name: Literal["clipself"] = "clipself"
    teacher_precision: Precision | None = None
    """Weights and arithmetic of the teacher, as in `engine.precision` (None: the same)."""
    teacher_batch: int | None = None
    """Crops per forward of the teacher, to save memory; None takes all of a batch at once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, "task", teacher_batch=1)

        legal = get_args(Precision)
        if self.teacher_precision is not None and self.teacher_precision not in legal:
            named = ", ".join(repr(precision) for precision in legal)
            reject(
                "task.teacher_precision",
                self.teacher_precision,
                f"one of {named}, or None for engine.precision",
            )


class ClipSelfTask:
    """1 - mean cosine between the student's box features and the teacher's crop features.

    The mean is over all boxes of the global batch. Averaged over ranks, gradients are those of one
    process with the boxes of all ranks, even if ranks have different numbers of boxes, or none. A
    batch without any box has loss 0.

    In the implementation released with the paper each GPU keeps its own gradients, and the weights
    of the first GPU are saved: 8 GPUs with 2 images train on 2 images per step and an eighth of the
    images per epoch. To repeat such a run, use one process with `data.batch_size=2` and
    `schedule.steps` of the run on 8 GPUs.

    Args:
        model: the student; `freeze(unlocked_blocks, path="dense")` decides what trains. The logit
            scale never does, since the loss does not use it.
        teacher: another RegionModel with the start weights; its image side is enough
            (`copy_image_side`). It is frozen here and is no part of `model`: engines neither
            partition nor checkpoint it. It follows the batches to their device and keeps its dtype.
        box_mode: "align" pools the dense map (the paper's), "attention" lets a class token attend
            in the box.
        teacher_batch: crops per forward of the teacher; None takes all of a batch at once.
        teacher_autocast: dtype of the teacher's arithmetic where its weights are float32; None uses
            the dtype of the weights.

    Raises ValueError for an unknown `box_mode`, a `teacher_batch` below 1, and a teacher that
    shares weights with the student.
    """

    def __init__(
        self,
        model: "RegionModel",
        teacher: "RegionModel",
        *,
        box_mode: str = "align",
        teacher_batch: int | None = None,
        teacher_autocast: torch.dtype | None = None,
    ) -> None:
        check_box_mode(box_mode)
        if teacher_batch is not None and teacher_batch < 1:
            raise ValueError(
                f"teacher_batch={teacher_batch!r} is not possible: "
                "use a number of crops, or None for all"
            )
        if {id(p) for p in model.parameters()} & {id(p) for p in teacher.parameters()}:
            raise ValueError(
                "the teacher shares weights with the student: pass a copy of the start model"
            )

        # Checkpointing saves memory of a backward pass, which the teacher does not have.
        teacher.set_grad_checkpointing(False)
        self.model = model
        self.teacher = teacher.requires_grad_(False).eval()
        self.box_mode = box_mode
        self.teacher_batch = teacher_batch
        self.teacher_autocast = teacher_autocast

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return what `freeze` left trainable, without the logit scale."""
        return trained_parameters(self.model, logit_scale=False)

    def loss(self, batch: CropBatch) -> dict[str, Tensor]:
        """Return {"loss", "boxes"} of one batch of uint8 pixels or normalised floats.

        "boxes" is their mean number over the ranks. Raises ValueError unless there is one crop for
        each box.
        """
        boxes = sum(map(len, batch.boxes))
        if boxes != len(batch.crops):
            raise ValueError(
                f"{len(batch.crops)} crops for {boxes} boxes: "
                "pass one crop for each box, in their order"
            )

        # This runs without boxes, too: under ZeRO-3 every rank has to run the same modules.
        images = pixels(self.model, batch.images)
        student = self.model.encode_boxes(images, batch.boxes, mode=self.box_mode)  # (N, C)
        teacher = self.teacher_features(batch.crops) if boxes else student  # (N, C)

        rows = rows_per_rank(boxes, student.device)
        return {"loss": cosine_distillation(student, teacher, rows=rows), "boxes": rows}

    @torch.no_grad()
    def teacher_features(self, crops: Tensor) -> Tensor:
        """Return (N, C) unit image features of (N, 3, c, c) crops."""
        if self.teacher.device != crops.device:
            self.teacher.to(crops.device)
        parts = [crops] if self.teacher_batch is None else crops.split(self.teacher_batch)

        autocast = self.teacher_autocast
        with torch.autocast(crops.device.type, dtype=autocast, enabled=autocast is not None):
            features = [self.teacher.encode_image(pixels(self.teacher, part)) for part in parts]
        return torch.cat(features)

    def save(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Write the student for `create_model(name, pretrained=folder)` and plain open_clip."""
        save_weights(self.model, folder, state)


def build_clipself(
    options: ClipSelfConfig, model: "RegionModel", context: BuildContext[CropDataConfig]
) -> ClipSelfTask:
    """Build CLIPSelf's task; the teacher is a copy of `model` as it is now."""
    # Imported here: options do not need open_clip, which takes seconds.
    from clim_models import copy_image_side
    from clim_models.towers import compile_blocks

    precision = options.teacher_precision or context.engine.precision
    teacher = copy_image_side(model).to(dtype=WEIGHT_DTYPES[precision])
    if context.engine.compile:
        compile_blocks(teacher.tower)
    return ClipSelfTask(
        model,
        teacher,
        box_mode=options.box_mode,
        teacher_batch=options.teacher_batch,
        teacher_autocast=autocast_dtype(precision),
    )


CLIPSELF = Method(
    name="clipself",
    title="CLIPSelf",
    options=ClipSelfConfig,
    data=CROPS,
    build=build_clipself,
    gradient_path=regions_only,
    micro_batch=SMALL_BATCHES,
)
