"""The frozen-CLIP detector of CLIM (arXiv 2312.11376), after F-VLM (arXiv 2209.15639): on a frozen
ViT or ResNet, trained on boxes of base classes."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from clim_models.detection import FROZEN_CLIP_PRESETS, build_frozen_clip

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

FVLMName = Literal["fvlm-coco-b16", "fvlm-lvis-b16", "fvlm-lvis-rn50x64"]


@dataclass(frozen=True)
class FVLMConfig(DetectorConfig):
    """Neck, proposals, box head and, for LVIS, mask head on a frozen tower, with a learned
    background."""

    name: Literal["fvlm"] = "fvlm"
    detector: FVLMName = "fvlm-coco-b16"
    """Published settings of neck, heads and scores, see `FROZEN_CLIP_PRESETS` of
    clim_models.detection."""
    original: bool = False
    """Pad with the mean colour in the wrong order of channels, and let boxes reach into the
    padding, as the released code does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "task", "detector")


def check_fvlm(options: FVLMConfig, data: DetectionDataConfig) -> None:
    """Raise ValueError unless masks are read exactly where the detector has a mask head."""
    check_masks(options.detector, FROZEN_CLIP_PRESETS[options.detector], data)


def build_fvlm_task(
    options: FVLMConfig, model: "RegionModel", context: BuildContext[DetectionDataConfig]
) -> DetectorTask:
    """Build the detector with the embeddings of the loader's classes."""
    check_stage(context.engine)
    classes, _ = class_set(options, model, context, background=False)
    preset = replace(
        FROZEN_CLIP_PRESETS[options.detector],
        image_size=context.data.image_px,
        blocks=options.blocks or None,
        original=options.original,
    )
    detector = build_frozen_clip(model, classes, preset)
    return DetectorTask(detector, only_shapes=context.class_names is None)


FVLM = Method(
    name="fvlm",
    title="frozen-CLIP detector",
    options=FVLMConfig,
    data=VIEWS,
    build=build_fvlm_task,
    gradient_path=lambda options, data: "dense",
    check=check_fvlm,
    micro_batch=SMALL_BATCHES,
)
