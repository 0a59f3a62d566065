"""RegionCLIP-style training (arXiv 2112.09106, as in arXiv 2310.01403): boxes against the names of
classes.

Letters: B images, n_i boxes of image i, N = sum n_i boxes of this rank, K classes, C channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.distributed as dist
from clim_data import BoxBatch
from clim_data.processes.ranks import ranks
from clim_models.losses.federated import federated_class_weights, federated_region_loss
from torch import Tensor, nn
from torch.nn import functional as F

from clim_train.methods.boxes import BoxDataConfig
from clim_train.methods.region_parts import pixels, rows_per_rank, save_weights, trained_parameters
from clim_train.options.checks import check_at_least, check_choice, check_default
from clim_train.options.sections import BoxMode
from clim_train.transfer import to_device

if TYPE_CHECKING:
    from clim_models import RegionModel


@dataclass(frozen=True)
class RegionClipConfig:
    """RegionCLIP-style: each box against the names of classes, as so many yes-or-no questions."""

    DATA: ClassVar[type] = BoxDataConfig
    name: Literal["regionclip"] = "regionclip"
    box_mode: BoxMode = "align"
    """`align` pools the dense map (the paper's); `attention` lets a class token attend in each
    box."""
    embeddings: str | None = None
    """Class embeddings of `clim-eval embed`, or a .npy in the order of the category ids; None
    embeds the category names with the model's own text tower."""
    templates: Literal["vild", "photo", "name"] = "vild"
    """Prompts for the names where `embeddings` is None."""
    sampled_classes: int | None = 100
    """Classes a batch is asked about: those present in it, and others by chance up to so many; None
    asks about all."""
    sampling: Literal["distinct", "original"] = "distinct"
    """`original` counts a present class twice where there are fewer classes than
    `sampled_classes`."""

    def __post_init__(self) -> None:
        for name in ("name", "box_mode", "templates", "sampling"):
            check_choice(self, "task", name)
        check_at_least(self, "task", sampled_classes=1)
        if self.embeddings is not None:
            check_default(self, "task", ("templates",), "it without task.embeddings, for names")
        if self.sampled_classes is None:
            check_default(
                self, "task", ("sampling",), "it together with a number of task.sampled_classes"
            )


SAMPLING = ("distinct", "original")
_KEY_RANGE = 1 << 40  # sums over as many as 2^23 ranks stay whole


class RegionClipTask:
    """Binary cross-entropy of box features with class embeddings, over a sample of classes.

    Cosines are multiplied by the model's own temperature, exp(logit_scale), which does not train.
    The loss is summed over classes and averaged over all boxes of the global batch: averaged over
    ranks, gradients are those of one process with the boxes of all of them, also where ranks have
    unequally many, or none.

    Which classes a batch is asked about is drawn from torch's random numbers, whose state
    checkpoints keep, and is the same on every rank: those present on any rank, and others up to
    `sampled_classes`.

    In the implementation released with CLIPSelf each GPU draws its own sample and keeps its own
    gradients (see `ClipSelfTask` for how to repeat that), and with fewer classes than the sample
    has places some count twice.

    Args:
        model: `freeze(unlocked_blocks, path="dense")` decides what trains.
        class_embeddings: (K, C) rows of any length in the order of the loader's `class_names`.
        box_mode: "align" pools the dense map (the paper's), "attention" lets a class token attend
            in the box.
        sampled_classes: size of the sample; None asks every box about all classes.
        sampling: "distinct" counts no class twice, "original" does as said above.

    Raises ValueError for embeddings that are no matrix and for options out of range.
    """

    def __init__(
        self,
        model: "RegionModel",
        class_embeddings: Tensor,
        *,
        box_mode: str = "align",
        sampled_classes: int | None = 100,
        sampling: str = "distinct",
    ):
        if box_mode not in ("align", "attention"):
            raise ValueError(f"box_mode={box_mode!r} is not possible: use 'align' or 'attention'")
        if sampling not in SAMPLING:
            raise ValueError(f"sampling={sampling!r} is not possible: use one of {SAMPLING}")
        if sampled_classes is not None and sampled_classes < 1:
            raise ValueError(
                f"sampled_classes={sampled_classes!r} is not possible: use a number, or None for "
                "all"
            )
        if class_embeddings.ndim != 2 or not len(class_embeddings):
            raise ValueError(
                f"class_embeddings {tuple(class_embeddings.shape)} are not (K, C): pass one row "
                "each"
            )
        self.model = model
        self.class_embeddings = F.normalize(class_embeddings.detach().float(), dim=1)
        self.box_mode, self.sampled_classes, self.sampling = box_mode, sampled_classes, sampling

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        return trained_parameters(self.model, logit_scale=False)

    def loss(self, batch: BoxBatch) -> dict[str, Tensor]:
        """{"loss", "boxes", "classes"} of one batch: uint8 pixels, or floats that are normalised
        already.

        "boxes" is their mean number over the ranks, "classes" the size of the sample.
        """
        # Also without boxes: under ZeRO-3 every rank has to run the same modules.
        features = self.model.encode_boxes(
            pixels(self.model, batch.images), batch.boxes, mode=self.box_mode
        )  # (N, C)
        if self.class_embeddings.device != features.device:
            self.class_embeddings = self.class_embeddings.to(features.device)
        weights = self.class_weights(batch.labels)
        rows = rows_per_rank(len(features), features.device)
        loss = federated_region_loss(
            features,
            self.class_embeddings,
            batch.labels,
            self.model.logit_scale.detach().float().exp().squeeze(),
            class_weights=weights,
            rows=rows,
        )
        return {"loss": loss, "boxes": rows, "classes": weights.sum()}

    def class_weights(self, labels: Tensor) -> Tensor:
        """(K,) how often each class counts for this batch, the same on every rank; labels: (N,) of
        this rank."""
        classes = len(self.class_embeddings)
        keys = to_device(torch.randint(_KEY_RANGE, (classes,)), labels.device)
        shared = torch.stack([keys, torch.zeros_like(keys).scatter_(0, labels, 1)])  # (2, K)
        if ranks() > 1:
            # Sums of uniform keys, modulo their range, are uniform keys; counts say which classes
            # any rank has.
            dist.all_reduce(shared)
        return federated_class_weights(
            shared[1],
            shared[0] % _KEY_RANGE,
            self.sampled_classes,
            repeat_present=self.sampling == "original",
        )

    def save(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Writes the model for `create_model(name, pretrained=folder)` and plain open_clip."""
        save_weights(self.model, folder, state)
