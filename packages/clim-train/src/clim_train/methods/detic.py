"""Detic + CLIM (arXiv 2201.02605, arXiv 2312.11376): a detector that trains its ResNet on boxes of
base classes, and learns other classes from captions, tags, and mosaics of captioned pictures.

Letters: T pictures of a batch, C embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from clim_data.streams import CaptionedBatch, MixedBatch
from clim_models.detection import (
    CAFFE_IMAGES,
    LVIS_LEVEL,
    RGB_IMAGES,
    Annotations,
    C4Detector,
    C4Options,
    CaptionedImage,
    CaptionRules,
    Captions,
    CascadeDetector,
    CascadeLossRules,
    CascadeOptions,
    CentreRules,
    ClassSet,
    HeatmapRules,
    ImageLevelRules,
    ResNetRules,
    SigmoidRules,
    TagRules,
    largest_detic_losses,
    largest_image_losses,
    load_detic,
    load_resnet,
    prepare_padded,
    save_detector,
)
from torch import Tensor, nn

from clim_train.methods.captioned_views import CAPTIONED_VIEWS, CaptionedDataConfig
from clim_train.methods.detectors import (
    COCO_CLASSES,
    LVIS_CLASSES,
    annotations,
    check_stage,
    embed_classes,
)
from clim_train.methods.method import SMALL_BATCHES, BuildContext, Method, MethodOptions
from clim_train.methods.region_parts import rows_per_rank
from clim_train.methods.text_features import TextFeatures
from clim_train.options.checks import check_at_least, check_choice, check_default, reject
from clim_train.options.paths import PATH, PATH_OR_NAME

if TYPE_CHECKING:
    from clim_models import RegionModel

DeticName = Literal["ov-coco", "ov-lvis"]
# Names of weights that a ResNet is not started with.
RANDOM = "random"
# Number of captions whose features are stored.
KEPT_CAPTIONS = 20_000
# Stages of a cascade, each of which learns from captions.
STAGES = 3


@dataclass(frozen=True)
class DeticConfig(MethodOptions):
    """Detic + CLIM: a ResNet with proposals and box heads, classified by text embeddings."""

    name: Literal["detic"] = "detic"
    detector: DeticName = "ov-coco"
    """`ov-coco`: one map of stride 16, two stages. `ov-lvis`: a pyramid, a cascade of three box
    heads, and masks."""
    start: str | None = field(default=None, metadata=PATH)
    """Detector to go on from: a run on boxes, or a released file."""
    backbone: str | None = field(default=None, metadata=PATH_OR_NAME)
    """ResNet to start from without `start`: a file of weights, or `random`."""
    resnet: Literal["caffe", "torchvision"] = "caffe"
    """Whose weights they are, which no file says: those of Caffe (MSRA), or of torchvision and
    timm. It decides where strides sit and how pixels are normalised."""
    embeddings: str | None = field(default=None, metadata=PATH)
    """Class embeddings of `clim-eval embed`; None embeds the names with the model's text tower."""
    templates: Literal["vild", "photo", "name"] = "vild"
    """Prompts for the names where `embeddings` is None."""
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    """Blocks of each stage of the ResNet; these are ResNet-50."""
    width: int = 64
    """Channels of the ResNet's stem."""
    channels: int = 256
    """Channels of the pyramid and the heads of `ov-lvis`."""
    original: bool = False
    """Behave as the released code also where it has a fault that published figures rest on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("detector", "resnet", "templates"):
            check_choice(self, "task", name)
        check_at_least(self, "task", width=1, channels=2)
        if self.embeddings is not None:
            check_default(self, "task", ("templates",), "it without task.embeddings, for names")
        if self.start is not None and self.backbone is not None:
            reject("task.backbone", self.backbone, "either it or task.start, not both")
        if len(self.blocks) != 4 or min(self.blocks) < 1:
            reject("task.blocks", self.blocks, "four numbers of at least 1")


def check_detic(options: DeticConfig, data: CaptionedDataConfig) -> None:
    """Raise ValueError unless masks are read exactly where the detector has a mask head."""
    if (options.detector == "ov-lvis") != data.masks:
        legal = "--data.masks with task.detector 'ov-lvis', and --data.no-masks with 'ov-coco'"
        reject("data.masks", data.masks, legal)


class DeticTask:
    """Losses of boxes, of pictures with captions and tags, and of mosaics of them.

    The sum of all is one backward pass. Every part that trains gets a gradient in every step, if
    need be of zeros, so that ranks never wait for each other.

    Args:
        detector: its base classes are those with boxes.
        text: the model whose frozen text tower embeds captions.
        only_shapes: losses are those of the largest step, for an estimate.
    """

    def __init__(
        self,
        detector: C4Detector | CascadeDetector,
        text: "RegionModel",
        *,
        only_shapes: bool = False,
    ) -> None:
        self.model = detector
        self.text = text
        self._only_shapes = only_shapes
        self._features = TextFeatures(text, KEPT_CAPTIONS)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return the trained parameters: no batch norms and, on OV-COCO, no first stages."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def loss(self, batch: MixedBatch) -> dict[str, Tensor]:
        """Return "loss", its parts, and accuracies in percent."""
        boxes = batch.boxes
        images, limits = prepare_padded(boxes.images, boxes.windows, self.model.options.images)
        if self._only_shapes:
            self.model.train()
            losses = largest_detic_losses(self.model, images)
        else:
            losses = self._box_losses(images, limits, annotations(boxes))
        for name, part in (("captions", batch.captions), ("mosaics", batch.mosaics)):
            if part is not None:
                found = self.image_losses(part)
                losses |= {f"{name}.{key}": value for key, value in found.items()}

        parts = [value for name, value in losses.items() if not name.endswith("acc")]
        level = self.model.image_level
        if level is not None:
            # Biases of losses that this step does not have.
            parts += [0 * parameter.sum() for parameter in level.parameters()]
        return {"loss": torch.stack(parts).sum(), **losses}

    def _box_losses(
        self, images: Tensor, limits: Tensor, truths: Sequence[Annotations]
    ) -> dict[str, Tensor]:
        if isinstance(self.model, C4Detector):
            return dict(self.model.losses(images, limits, truths))
        rows = partial(rows_per_rank, device=images.device)
        return dict(self.model.losses(images, limits, truths, divisor=rows))

    def image_losses(self, batch: CaptionedBatch) -> dict[str, Tensor]:
        """Return the losses of pictures without boxes."""
        images, limits = prepare_padded(batch.images, batch.windows, self.model.options.images)
        if self._only_shapes:
            return largest_image_losses(self.model, images, [len(one) for one in batch.tiles])
        described = captioned_images(batch, self._features(batch.captions))
        if isinstance(self.model, C4Detector):
            return self.model.image_losses(images, limits, described)
        return self.model.image_losses(images, limits, [described] * STAGES)

    def save(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Write the detector for `clim_models.detection.open_detector`."""
        save_detector(self.model, folder, state)


def captioned_images(batch: CaptionedBatch, features: Tensor) -> list[CaptionedImage]:
    """Describe the images of a batch.

    Args:
        batch: B images, T pictures.
        features: (T, C) unit rows, of the captions of the pictures.
    """
    counts = [len(tiles) for tiles in batch.tiles]
    rows = zip(batch.tiles, batch.numbers, batch.tags, features.float().split(counts), strict=True)
    return [
        CaptionedImage(tiles, numbers, tags, Captions(own, numbers))
        for tiles, numbers, tags, own in rows
    ]


def build_detic_task(
    options: DeticConfig, model: "RegionModel", context: BuildContext[CaptionedDataConfig]
) -> DeticTask:
    """Build the detector with the embeddings of the loader's classes.

    Raises ValueError where it has nothing to start from, for weights of 16 bits and for ZeRO-3.
    """
    check_stage(context.engine)
    if context.engine.precision in ("bf16", "fp16"):
        legal = "'amp_bf16' or 'fp32': pixels and boxes of this detector are float32"
        reject("engine.precision", context.engine.precision, legal)
    if context.class_names is None:
        # As many classes as the official file has, with embeddings of any value.
        count = COCO_CLASSES if options.detector == "ov-coco" else LVIS_CLASSES
        rows = torch.ones(count, model.embed_dim)
        known = ClassSet([str(label) for label in range(count)], rows, range(count))
        return DeticTask(build_detector(options, known, context), model, only_shapes=True)
    if options.start is None and options.backbone is None:
        raise ValueError(
            "the detector has nothing to start from: name a ResNet with --task.backbone FILE (and "
            "--task.resnet), or a detector with --task.start RUN_OR_FILE; --task.backbone random "
            "trains from scratch"
        )
    model.requires_grad_(False).to(context.device)
    classes, _ = embed_classes(model, context, file=options.embeddings, templates=options.templates)
    detector = build_detector(options, classes, context)
    detector.attach_text(model)

    if options.start is not None:
        # No weight belongs to a class, so classes in another order, or others, do no harm.
        load_detic(detector, options.start, keep_classes=True)
    elif options.backbone != RANDOM:
        assert options.backbone is not None
        load_resnet(detector, options.backbone, style=options.resnet)
    return DeticTask(detector, model)


def build_detector(
    options: DeticConfig, classes: ClassSet, context: BuildContext[CaptionedDataConfig]
) -> C4Detector | CascadeDetector:
    """Build the detector of a configuration, with random weights."""
    data, original = context.data, options.original
    is_caffe = options.resnet == "caffe"
    if options.detector == "ov-coco":
        level = ImageLevelRules(TagRules() if data.tags else None, CaptionRules())
        return C4Detector(
            classes,
            C4Options(
                resnet=ResNetRules(options.blocks, options.width, stride_in_1x1=is_caffe, frozen=1),
                images=CAFFE_IMAGES if is_caffe else RGB_IMAGES,
                classifier=SigmoidRules(25.0, -20.0, bias_in_training_only=original),
                image_level=level if data.has_captions else None,
            ),
        )

    level = LVIS_LEVEL if data.tags else replace(LVIS_LEVEL, tags=None)
    cascade = CascadeOptions(
        resnet=ResNetRules(options.blocks, options.width, stride_in_1x1=is_caffe),
        images=CAFFE_IMAGES if is_caffe else RGB_IMAGES,
        centres=CentreRules(
            heatmap=HeatmapRules(empty_images=not original), groups=min(32, options.channels // 2)
        ),
        channels=options.channels,
        width=4 * options.channels,
        mask_channels=options.channels,
        losses=CascadeLossRules(count_background=original),
        image_level=level if data.has_captions else None,
        groups_compete=original,
    )
    # By these, classes of a step are drawn as negatives. An export draws none.
    counts = torch.tensor(context.image_counts or [1] * classes.num_classes)
    return CascadeDetector(classes, counts, cascade)


DETIC = Method(
    name="detic",
    title="Detic + CLIM",
    options=DeticConfig,
    data=CAPTIONED_VIEWS,
    build=build_detic_task,
    gradient_path=lambda options, data: "dense",
    check=check_detic,
    micro_batch=SMALL_BATCHES,
)
