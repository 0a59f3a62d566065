"""RegionCLIP-style training (arXiv 2112.09106, as in arXiv 2310.01403): boxes against names of
classes.

Letters: B images, n_i boxes of image i, N = sum n_i boxes of this rank, K classes, C channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import torch.distributed as dist
from clim_data import BoxBatch
from clim_data.processes import Ranks
from clim_models.losses import federated_class_weights, federated_region_loss
from torch import Tensor, nn
from torch.nn import functional as F

from clim_train.methods.boxes import BOXES, BoxDataConfig
from clim_train.methods.class_embeddings import class_embeddings
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
from clim_train.options.checks import check_at_least, check_choice, check_default
from clim_train.options.paths import PATH
from clim_train.transfer import to_device

if TYPE_CHECKING:
    from clim_models import RegionModel

SAMPLING = ("distinct", "original")
_KEY_RANGE = 1 << 40  # sums over as many as 2^23 ranks stay whole
_LVIS_CLASSES = 1203


@dataclass(frozen=True)
class RegionClipConfig(RegionOptions):
    """RegionCLIP-style: each box against the names of classes, one yes-or-no question for each
    class."""

    name: Literal["regionclip"] = "regionclip"
    embeddings: str | None = field(default=None, metadata=PATH)
    """Class embeddings of `clim-eval embed`, or a .npy in the order of the category ids; None
    embeds the category names with the model's own text tower."""
    templates: Literal["vild", "photo", "name"] = "vild"
    """Prompts for the names where `embeddings` is None."""
    sampled_classes: int | None = 100
    """Number of classes in a batch's questions: those of its boxes, and random others. None takes
    all."""
    sampling: Literal["distinct", "original"] = "distinct"
    """`original` counts a present class twice where there are fewer classes than
    `sampled_classes`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "task", "templates")
        check_choice(self, "task", "sampling")
        check_at_least(self, "task", sampled_classes=1)

        if self.embeddings is not None:
            check_default(self, "task", ("templates",), "it without task.embeddings, for names")
        if self.sampled_classes is None:
            legal = "it together with a number of task.sampled_classes"
            check_default(self, "task", ("sampling",), legal)


class RegionClipTask:
    """Binary cross-entropy of box features with class embeddings, over a sample of classes.

    Cosines are multiplied by the model's own temperature, exp(logit_scale), which does not train.
    The loss is summed over classes and averaged over all boxes of the global batch. Averaged over
    ranks, gradients are those of one process with the boxes of all ranks, even if ranks have
    different numbers of boxes, or none.

    The sample has the classes of all ranks' boxes, and random others up to `sampled_classes`. It
    comes from torch's random numbers, whose state is in the checkpoints, and is the same on every
    rank.

    In the implementation released with CLIPSelf each GPU draws its own sample and keeps its own
    gradients (see `ClipSelfTask` for how to repeat that), and with fewer classes than the sample
    has places some count twice.

    Args:
        model: `freeze(unlocked_blocks, path="dense")` decides what trains.
        class_embeddings: (K, C) rows of any length in the order of the loader's `class_names`.
        box_mode: "align" pools the dense map (the paper's), "attention" lets a class token attend
            in the box.
        sampled_classes: size of the sample; None takes all classes.
        sampling: "distinct" counts no class twice, "original" counts some twice, as explained
            above.

    Raises ValueError for embeddings that are not a matrix, and for options out of range.
    """

    def __init__(
        self,
        model: "RegionModel",
        class_embeddings: Tensor,
        *,
        box_mode: str = "align",
        sampled_classes: int | None = 100,
        sampling: str = "distinct",
    ) -> None:
        check_box_mode(box_mode)
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
        self.box_mode = box_mode
        self.sampled_classes = sampled_classes
        self.sampling = sampling

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return what `freeze` left trainable, without the logit scale."""
        return trained_parameters(self.model, logit_scale=False)

    def loss(self, batch: BoxBatch) -> dict[str, Tensor]:
        """Return {"loss", "boxes", "classes"} of one batch of uint8 pixels or normalised floats.

        "boxes" is their mean number over the ranks, "classes" the size of the sample.
        """
        # This runs without boxes, too: under ZeRO-3 every rank has to run the same modules.
        images = pixels(self.model, batch.images)
        features = self.model.encode_boxes(images, batch.boxes, mode=self.box_mode)  # (N, C)

        if self.class_embeddings.device != features.device:
            self.class_embeddings = self.class_embeddings.to(features.device)
        weights = self.class_weights(batch.labels)  # (K,)
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
        """Return the weight (K,) of each class in this batch: how often it counts, the same on
        every rank.

        Args:
            labels: (N,) classes of this rank's boxes.
        """
        classes = len(self.class_embeddings)
        keys = to_device(torch.randint(_KEY_RANGE, (classes,)), labels.device)
        present = torch.zeros_like(keys).scatter_(0, labels, 1)

        shared = torch.stack([keys, present])  # (2, K)
        if Ranks.of_group().world_size > 1:
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
        """Write the model for `create_model(name, pretrained=folder)` and plain open_clip."""
        save_weights(self.model, folder, state)


def build_regionclip(
    options: RegionClipConfig, model: "RegionModel", context: BuildContext[BoxDataConfig]
) -> RegionClipTask:
    """Build the RegionCLIP-style task with the embeddings of the loader's classes."""
    if context.class_names is None:
        # The loss computes scores of all classes; LVIS has as many as any data set we know.
        classes = max(options.sampled_classes or 0, _LVIS_CLASSES)
        embeddings = torch.ones(classes, model.embed_dim)
    else:
        embeddings = class_embeddings(
            model,
            context.class_names,
            file=options.embeddings,
            templates=options.templates,
            device=context.device,
        )
    return RegionClipTask(
        model,
        embeddings,
        box_mode=options.box_mode,
        sampled_classes=options.sampled_classes,
        sampling=options.sampling,
    )


REGIONCLIP = Method(
    name="regionclip",
    title="RegionCLIP-style",
    options=RegionClipConfig,
    data=BOXES,
    build=build_regionclip,
    gradient_path=regions_only,
    micro_batch=SMALL_BATCHES,
)
