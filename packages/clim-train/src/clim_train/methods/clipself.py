"""CLIPSelf (arXiv 2310.01403): box features of the dense map follow the start model's features of
the boxes' crops.

Letters: B images, n_i boxes of image i, N = sum n_i boxes of this rank, C channels, c side of a
crop.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch
from clim_data import CropBatch
from clim_models.losses.distillation import cosine_distillation
from torch import Tensor, nn

from clim_train.methods.crops import CropDataConfig
from clim_train.methods.region_parts import pixels, rows_per_rank, save_weights, trained_parameters
from clim_train.options.checks import check_at_least, check_choice, reject
from clim_train.options.sections import BoxMode, Precision

if TYPE_CHECKING:
    from clim_models import RegionModel


@dataclass(frozen=True)
class ClipSelfConfig:
    """CLIPSelf: box features of the dense map follow the frozen start model's features of the
    boxes' crops."""

    DATA: ClassVar[type] = CropDataConfig
    name: Literal["clipself"] = "clipself"
    box_mode: BoxMode = "align"
    """`align` pools the dense map (the paper's); `attention` lets a class token attend in each
    box."""
    teacher_precision: Precision | None = None
    """Weights and arithmetic of the teacher, as `engine.precision` (None: the same)."""
    teacher_batch: int | None = None
    """Crops per forward of the teacher, to save memory; None takes all of a batch at once."""

    def __post_init__(self) -> None:
        check_choice(self, "task", "name")
        check_choice(self, "task", "box_mode")
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

    The mean is over all boxes of the global batch: averaged over ranks, gradients are those of one
    process with the boxes of all of them, also where ranks have unequally many, or none. A batch
    without any box has loss 0.

    In the implementation released with the paper each GPU keeps its own gradients, and the weights
    of the first are saved: 8 GPUs with 2 images train on 2 images per step and an eighth of the
    images per epoch. That is one process with `data.batch_size=2` and `schedule.steps` of the run
    on 8 GPUs; nothing else is needed to repeat it.

    Args:
        model: the student; `freeze(unlocked_blocks, path="dense")` decides what trains. The logit
            scale never does, since the loss has no use for it.
        teacher: another RegionModel with the start weights; its image side is enough
            (`copy_image_side`). It is frozen here and is no part of `model`: engines neither
            partition nor checkpoint it. It follows the batches to their device, with the dtype it
            has.
        box_mode: "align" pools the dense map (the paper's), "attention" lets a class token attend
            in the box.
        teacher_batch: crops per forward of the teacher; None takes all of a batch at once.
        teacher_autocast: dtype of the teacher's arithmetic where its weights are float32; None:
            that of its weights.

    Raises ValueError for an unknown `box_mode`, a `teacher_batch` below 1, and a teacher that is
    the student.
    """

    def __init__(
        self,
        model: "RegionModel",
        teacher: "RegionModel",
        *,
        box_mode: str = "align",
        teacher_batch: int | None = None,
        teacher_autocast: torch.dtype | None = None,
    ):
        if box_mode not in ("align", "attention"):
            raise ValueError(f"box_mode={box_mode!r} is not possible: use 'align' or 'attention'")
        if teacher_batch is not None and teacher_batch < 1:
            raise ValueError(
                f"teacher_batch={teacher_batch!r} is not possible: use a number of crops, or None "
                "for all"
            )
        if {id(p) for p in model.parameters()} & {id(p) for p in teacher.parameters()}:
            raise ValueError(
                "the teacher shares weights with the student: pass a copy of the start model"
            )
        teacher.set_grad_checkpointing(False)
        self.model, self.teacher = model, teacher.requires_grad_(False).eval()
        self.box_mode, self.teacher_batch, self.teacher_autocast = (
            box_mode,
            teacher_batch,
            teacher_autocast,
        )

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        return trained_parameters(self.model, logit_scale=False)

    def loss(self, batch: CropBatch) -> dict[str, Tensor]:
        """{"loss", "boxes"} of one batch: uint8 pixels, or floats that are normalised already.

        "boxes" is their mean number over the ranks. Raises ValueError when there is not one crop
        for each box.
        """
        boxes = sum(len(b) for b in batch.boxes)
        if boxes != len(batch.crops):
            raise ValueError(
                f"{len(batch.crops)} crops for {boxes} boxes: pass one crop for each box, in their "
                "order"
            )
        # Also without boxes: under ZeRO-3 every rank has to run the same modules.
        student = self.model.encode_boxes(
            pixels(self.model, batch.images), batch.boxes, mode=self.box_mode
        )  # (N, C)
        teacher = self.teacher_features(batch.crops) if boxes else student
        rows = rows_per_rank(boxes, student.device)
        return {"loss": cosine_distillation(student, teacher, rows=rows), "boxes": rows}

    @torch.no_grad()
    def teacher_features(self, crops: Tensor) -> Tensor:
        """(N, C) unit image features of (N, 3, c, c) crops."""
        if self.teacher.device != crops.device:
            self.teacher.to(crops.device)
        parts = [crops] if self.teacher_batch is None else crops.split(self.teacher_batch)
        autocast = self.teacher_autocast
        with torch.autocast(crops.device.type, dtype=autocast, enabled=autocast is not None):
            return torch.cat(
                [self.teacher.encode_image(pixels(self.teacher, part)) for part in parts]
            )

    def save(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Writes the student for `create_model(name, pretrained=folder)` and plain open_clip."""
        save_weights(self.model, folder, state)
