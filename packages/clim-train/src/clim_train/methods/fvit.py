"""F-ViT (arXiv 2310.01403): an open-vocabulary detector on a frozen ViT, trained on boxes of base
classes."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from clim_models.detection import FVIT_PRESETS, build_fvit

from clim_train.methods.detectors import (
    DetectorConfig,
    DetectorTask,
    check_masks,
    check_stage,
    class_set,
)
from clim_train.methods.method import SMALL_BATCHES, BuildContext, Method
from clim_train.methods.views import VIEWS, DetectionDataConfig
from clim_train.options.checks import check_choice

if TYPE_CHECKING:
    from clim_models import RegionModel

FViTName = Literal["fvit-coco-b16", "fvit-coco-l14", "fvit-lvis-b16", "fvit-lvis-l14"]


@dataclass(frozen=True)
class FViTConfig(DetectorConfig):
    """F-ViT: neck, proposals, box head and, for LVIS, mask head on a frozen tower, classified by
    text embeddings."""

    name: Literal["fvit"] = "fvit"
    detector: FViTName = "fvit-coco-b16"
    """Published settings of heads and scores, see `FVIT_PRESETS` of clim_models.detection."""
    original: bool = False
    """Normalise images with ImageNet's statistics, as the released code does, in place of the
    tower's own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "task", "detector")


def check_fvit(options: FViTConfig, data: DetectionDataConfig) -> None:
    """Raise ValueError unless masks are read exactly where the detector has a mask head."""
    check_masks(options.detector, FVIT_PRESETS[options.detector], data)


def build_fvit_task(
    options: FViTConfig, model: "RegionModel", context: BuildContext[DetectionDataConfig]
) -> DetectorTask:
    """Build F-ViT with the embeddings of the loader's classes."""
    check_stage(context.engine)
    classes, background = class_set(options, model, context, background=True)
    preset = replace(
        FVIT_PRESETS[options.detector],
        image_size=context.data.image_px,
        blocks=options.blocks or None,
        original=options.original,
    )
    detector = build_fvit(model, classes, preset, background=background)
    return DetectorTask(detector, only_shapes=context.class_names is None)


FVIT = Method(
    name="fvit",
    title="F-ViT",
    options=FViTConfig,
    data=VIEWS,
    build=build_fvit_task,
    gradient_path=lambda options, data: "dense",
    check=check_fvit,
    micro_batch=SMALL_BATCHES,
)
