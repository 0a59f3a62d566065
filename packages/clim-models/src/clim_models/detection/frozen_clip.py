"""Detector on a frozen CLIP of CLIM (arXiv 2312.11376), after F-VLM (arXiv 2209.15639)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Tensor

from clim_models.detection.assembly import (
    Frame,
    assemble,
    clip_images,
    original_images,
)
from clim_models.detection.detector import TwoStageDetector
from clim_models.detection.features.backbone import Backbone, StageBackbone, ViTBackbone
from clim_models.detection.features.fpn import FPN, Neck
from clim_models.detection.features.nas_fpn import NASFPN
from clim_models.detection.fvit import BLOCKS
from clim_models.detection.heads.box_head import BoxHeadRules
from clim_models.detection.heads.ensemble import EnsembleRules
from clim_models.detection.heads.rpn import ProposalRules
from clim_models.detection.heads.text_classifier import (
    Background,
    BackgroundKind,
    ClassSet,
    TextClassifier,
)
from clim_models.detection.rules import DetectionRules, DetectorOptions
from clim_models.region_model import RegionModel

NeckName = Literal["fpn", "nas_fpn"]
# Kinds of towers whose maps have several sizes.
STAGE_TOWERS = ("resnet", "timm_cnn")


@dataclass(frozen=True, kw_only=True)
class FrozenClipOptions(DetectorOptions):
    """Options of the detector; `FROZEN_CLIP_PRESETS` has the published ones.

    Attributes:
        neck: "fpn" or "nas_fpn".
        stacks: cells of NAS-FPN.
        width: of the fully connected layers.
        background: see `Background`; the published detectors learn it ("linear").

    Raises:
        ValueError: an unknown neck.
    """

    neck: NeckName = "fpn"
    stacks: int = 7
    width: int = 1024
    background: BackgroundKind = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neck not in get_args(NeckName):
            raise ValueError(f"neck={self.neck!r}; legal values are 'fpn' and 'nas_fpn'")


_LVIS = FrozenClipOptions(
    image_size=640,
    ensemble=EnsembleRules(base=0.35, novel=0.65, temperature=50),
    masks=True,
    best_proposal=True,
)

FROZEN_CLIP_PRESETS: dict[str, FrozenClipOptions] = {
    "fvlm-coco-b16": FrozenClipOptions(
        image_size=640,
        ensemble=EnsembleRules(base=0.1, novel=0.8, temperature=75),
        detections=DetectionRules(score=0.01, overlap=0.4, per_image=100),
        background_weight=0.6,
        testing_proposals=ProposalRules(before_nms=1000),
    ),
    "fvlm-lvis-b16": replace(_LVIS, neck="nas_fpn"),
    "fvlm-lvis-rn50x64": replace(_LVIS, image_size=1024, rpn_norm=True),
}


def build_frozen_clip(
    model: RegionModel,
    classes: ClassSet,
    options: FrozenClipOptions,
    *,
    background: Tensor | None = None,
) -> TwoStageDetector:
    """Build a frozen-CLIP detector with random heads.

    `options.original` pads pictures with CLIP's mean in the wrong order of channels, does not round
    resized pixels, and lets boxes reach into the padding, as the released code does. The released
    ViT weights also need a tower with plain GELU ("ViT-B-16", not "ViT-B-16-quickgelu"), and on
    OV-COCO all 80 class names; `ClassSet.without` drops those that are neither base nor novel.

    Args:
        model: a ViT, a ModifiedResNet or a timm CNN; it is frozen.
        classes: names, embeddings and base classes.
        options: a preset, or your own.
        background: (C,) embedding, for the backgrounds "fixed" and "learned".

    Raises:
        ValueError: a tower of another depth without `options.blocks`, or embeddings of another
            width.
    """
    backbone = _backbone(model, options.blocks)
    images = clip_images(model, options.image_size)
    if options.original:
        images = original_images(images)
    classifier = TextClassifier(Background(options.background, backbone.embed_dim, background))
    return assemble(
        Frame(backbone, _neck(backbone.channels, options), images),
        classifier,
        BoxHeadRules(width=options.width, project=True),
        classes,
        options=options,
    )


def _backbone(model: RegionModel, blocks: Sequence[int] | None) -> Backbone:
    if model.tower_kind in STAGE_TOWERS:
        return StageBackbone(model, blocks)
    chosen = blocks or BLOCKS.get(model.num_blocks)
    if chosen is None:
        raise ValueError(
            f"this tower has {model.num_blocks} blocks: name the four that are read, "
            f"such as blocks=({model.num_blocks // 4}, ..., {model.num_blocks - 1})"
        )
    return ViTBackbone(model, chosen)


def _neck(channels: Sequence[int], options: FrozenClipOptions) -> Neck:
    if options.neck == "nas_fpn":
        return NASFPN(channels, options.channels, options.stacks)
    return FPN(channels, options.channels)
