"""F-ViT: detector on a frozen ViT (CLIPSelf, arXiv 2310.01403, section 3.4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from torch import Tensor

from clim_models.detection.assembly import Frame, assemble, clip_images
from clim_models.detection.checkpoints import load_detector
from clim_models.detection.detector import TwoStageDetector
from clim_models.detection.features.backbone import ViTBackbone
from clim_models.detection.features.fpn import FPN
from clim_models.detection.heads.box_head import BoxHeadRules
from clim_models.detection.heads.classes import embed_class_set
from clim_models.detection.heads.ensemble import EnsembleRules
from clim_models.detection.heads.text_classifier import Background, ClassSet, TextClassifier
from clim_models.detection.images import IMAGENET_MEAN, IMAGENET_STD
from clim_models.detection.rules import DetectionRules, DetectorOptions
from clim_models.region_model import RegionModel
from clim_models.text.class_embeddings import embed_classes
from clim_models.text.vocabulary import Vocabulary

TransferName = Literal["fvit-transfer-coco", "fvit-transfer"]

# Blocks that are read, by the number of blocks of the tower.
BLOCKS = {12: (3, 5, 7, 11), 24: (6, 10, 14, 23)}


@dataclass(frozen=True, kw_only=True)
class FViTOptions(DetectorOptions):
    """Options of F-ViT; `FVIT_PRESETS` has the published ones.

    Attributes:
        learned_background: whether the background embedding trains.
        fixed_temperature: temperature of the classifier; None learns it, starting from 50.
    """

    learned_background: bool = False
    fixed_temperature: float | None = None


_COCO_BOXES = DetectionRules(score=0.01, overlap=0.4, per_image=100)
_COCO = FViTOptions(
    image_size=640,
    ensemble=EnsembleRules(base=0.1, novel=0.8, temperature=75),
    detections=_COCO_BOXES,
    background_weight=0.6,
)
_LVIS = FViTOptions(
    image_size=1024,
    ensemble=EnsembleRules(base=0.1, novel=0.6, temperature=50),
    masks=True,
    rpn_norm=True,
    best_proposal=True,
)
_LVIS_L14 = replace(
    _LVIS, image_size=896, ensemble=EnsembleRules(base=0.1, novel=0.4, temperature=50)
)
# A detector trained on LVIS with the vocabulary of another data set.
_TRANSFER = replace(_LVIS_L14, masks=False, fixed_temperature=50.0)

FVIT_PRESETS: dict[str, FViTOptions] = {
    "fvit-coco-b16": _COCO,
    "fvit-coco-l14": replace(_COCO, image_size=896),
    "fvit-lvis-b16": _LVIS,
    "fvit-lvis-l14": _LVIS_L14,
    "fvit-transfer-coco": replace(
        _TRANSFER, ensemble=EnsembleRules(base=0.2, novel=0.2, temperature=120)
    ),
    "fvit-transfer": replace(
        _TRANSFER, ensemble=EnsembleRules(base=0.3, novel=0.3, temperature=120)
    ),
}


def build_fvit(
    model: RegionModel,
    classes: ClassSet,
    options: FViTOptions,
    *,
    background: Tensor | None = None,
) -> TwoStageDetector:
    """Build an F-ViT with random heads on a frozen tower.

    The class feature passes a ReLU before it is compared with text embeddings, as in all published
    F-ViT figures. `options.original` normalises pictures with ImageNet's statistics, as the
    released weights expect, instead of the tower's own.

    Args:
        model: any ViT; it is frozen. EVA02-CLIP B/16 and L/14-336 are the published towers.
        classes: names, embeddings and base classes.
        options: a preset, or your own.
        background: (C,) embedding of the background; None embeds the word "background".

    Raises:
        ValueError: a tower of another depth without `options.blocks`, no ViT, or embeddings of
            another width.
    """
    blocks = options.blocks or BLOCKS.get(model.num_blocks)
    if blocks is None:
        raise ValueError(
            f"this tower has {model.num_blocks} blocks: name the four that are read, "
            f"such as blocks=({model.num_blocks // 4}, ..., {model.num_blocks - 1})"
        )
    backbone = ViTBackbone(model, blocks)
    images = clip_images(model, options.image_size)
    if options.original:
        images = replace(images, mean=IMAGENET_MEAN, std=IMAGENET_STD)

    if background is None:
        background = embed_classes(model, ["background"])[0]
    width = backbone.embed_dim
    fixed = options.fixed_temperature
    classifier = TextClassifier(
        Background("learned" if options.learned_background else "fixed", width, background),
        50.0 if fixed is None else fixed,
        fixed_temperature=fixed is not None,
    )
    return assemble(
        Frame(backbone, FPN(backbone.channels, options.channels), images),
        classifier,
        BoxHeadRules(width=width, project=False),
        classes,
        options=options,
    )


def transfer_fvit(
    detector: TwoStageDetector,
    vocabulary: Vocabulary | Sequence[str] | Mapping[str, Any],
    preset: TransferName = "fvit-transfer",
    **options: Any,
) -> TwoStageDetector:
    """Build the detector with which the paper is evaluated on other data sets.

    All classes count alike: scores trust CLIP with 0.2 on COCO and 0.3 on others, the temperature
    is 50 instead of the learned one, and there are no masks. `with_vocabulary` keeps the scores of
    the training in their place.

    Args:
        detector: an F-ViT, for example trained on LVIS; its weights are copied, except the tower.
        vocabulary: names, a `Vocabulary`, or what `Vocabulary.of` takes.
        preset: "fvit-transfer-coco", or "fvit-transfer" for Objects365 and VOC.
        options: `templates`, `read_example` and `cache` of `embed_vocabulary`.

    Returns:
        The detector in evaluation mode; `save_detector` writes it for `clim-eval detection`.

    Raises:
        ValueError: another kind of detector, an unknown preset, or an empty or doubled name.
    """
    if preset not in get_args(TransferName):
        raise ValueError(f"preset={preset!r}: use one of {', '.join(get_args(TransferName))}")
    trained = detector.options
    if not isinstance(trained, FViTOptions):
        raise ValueError(
            "this detector is no F-ViT that build_fvit made: open the run of an F-ViT with "
            "open_detector, or give other detectors names with with_vocabulary"
        )
    scores = FVIT_PRESETS[preset]
    chosen = replace(
        trained,
        ensemble=scores.ensemble,
        detections=scores.detections,
        masks=scores.masks,
        fixed_temperature=scores.fixed_temperature,
    )
    tower = detector.backbone.model
    classes = embed_class_set(tower, vocabulary, **options)
    background = detector.box_head.classifier.background().detach()
    made = build_fvit(tower, classes, chosen, background=background)
    load_detector(made, detector.state_dict(), keep_classes=True)
    return made.eval()
