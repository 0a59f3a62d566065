"""What a cascade detector is made of."""

from dataclasses import dataclass, field

from clim_models.detection.batches import BatchRules
from clim_models.detection.boxes.matching import SampleRules
from clim_models.detection.features.resnet import ResNetRules
from clim_models.detection.heads.cascade_losses import CascadeLossRules
from clim_models.detection.heads.centres import CentreRules
from clim_models.detection.heads.sigmoid import SigmoidRules
from clim_models.detection.image_level.captions import CaptionRules
from clim_models.detection.image_level.step import ImageLevelRules
from clim_models.detection.image_level.tags import TagRules
from clim_models.detection.rules import DetectionRules

RGB_IMAGES = BatchRules((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
LVIS_LEVEL = ImageLevelRules(
    TagRules(50.0, 0.1, start_bias=None),
    CaptionRules(50.0, 1.0, usual_regions=None, start_bias=None),
    groups=2,
)


@dataclass(frozen=True, kw_only=True)
class CascadeOptions:
    """Options of a cascade detector; the defaults are those of OV-LVIS.

    Attributes:
        resnet: layers of the backbone.
        images: how pictures become a batch.
        centres: the proposal network. Published runs have `empty_images=False` in its heatmap.
        channels, width, mask_channels: of the pyramid, the box heads and the mask head.
        classifier: temperature and bias.
        losses: number of classes in the questions of a step, and the distance of deltas.
        box_sample: number of boxes of an image that train.
        detections: which boxes are returned.
        image_level: losses of images without boxes; None trains on boxes only.
        groups_compete: whether boxes of groups may stand for a tile in the next stage, as in
            published runs. The box of a tile then often covers other tiles.
    """

    resnet: ResNetRules = field(default_factory=ResNetRules)
    images: BatchRules = RGB_IMAGES
    centres: CentreRules = field(default_factory=CentreRules)
    channels: int = 256
    width: int = 1024
    mask_channels: int = 256
    classifier: SigmoidRules = field(default_factory=lambda: SigmoidRules(50.0))
    losses: CascadeLossRules = field(default_factory=CascadeLossRules)
    box_sample: SampleRules = field(default_factory=lambda: SampleRules(512, 0.25))
    detections: DetectionRules = field(default_factory=lambda: DetectionRules(0.02, 0.5, 300))
    image_level: ImageLevelRules | None = LVIS_LEVEL
    groups_compete: bool = False
