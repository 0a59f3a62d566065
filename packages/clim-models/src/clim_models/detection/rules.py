"""Rules of a detector that are not layers, its results, and the random numbers that a caller may
fix.

Letters: B images, A anchors, G_i annotated boxes and N_i proposals of image i, n boxes found.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from clim_models.detection.boxes.matching import MatchRules, SampleRules
from clim_models.detection.heads.ensemble import EnsembleRules
from clim_models.detection.heads.rpn import ProposalRules
from clim_models.detection.images import ImageRules


@dataclass(frozen=True)
class DetectionRules:
    """Rules for the boxes that a detector returns.

    Attributes:
        score: boxes need a higher score.
        overlap: IoU above which the box of lower score is dropped, class by class.
        per_image: at most this number of boxes per image.

    Raises:
        ValueError: a number out of range.
    """

    score: float = 0.0001
    overlap: float = 0.5
    per_image: int = 300

    def __post_init__(self) -> None:
        if not (0 <= self.score <= 1 and 0 <= self.overlap <= 1 and self.per_image >= 1):
            raise ValueError(
                f"score={self.score}, overlap={self.overlap}, per_image={self.per_image}; "
                "pass a score and an overlap from 0 to 1 and a number of at least 1"
            )


@dataclass(frozen=True, kw_only=True)
class DetectorOptions:
    """The options in which the published detectors differ.

    Attributes:
        image_size: the longest side of a picture, and both sides of the padded square.
        ensemble: how scores of detector and CLIP are combined.
        detections: which boxes are returned.
        background_weight: of the background in the classification loss.
        masks: whether there is a mask head.
        rpn_norm: whether the proposal network has batch norms.
        best_proposal: whether an annotation also takes the proposal that overlaps it most (at least
            0.5) from an annotation that the proposal overlaps more.
        training_proposals, testing_proposals: how proposals are chosen.
        blocks: four blocks of the tower, see `encode_pyramid`; None takes the published ones.
        channels: of neck and heads.
        original: behave as the released code also where it has a fault; the builders say what
            changes. Released weights need it for their published figures.

    Raises:
        ValueError: a size below 1.
    """

    image_size: int
    ensemble: EnsembleRules
    detections: DetectionRules = field(default_factory=DetectionRules)
    background_weight: float = 0.9
    masks: bool = False
    rpn_norm: bool = False
    best_proposal: bool = False
    training_proposals: ProposalRules = field(default_factory=ProposalRules)
    testing_proposals: ProposalRules = field(default_factory=ProposalRules)
    blocks: tuple[int, ...] | None = None
    channels: int = 256
    original: bool = False

    def __post_init__(self) -> None:
        if min(self.image_size, self.channels) < 1:
            raise ValueError(
                f"image_size={self.image_size}, channels={self.channels}; pass at least 1"
            )


@dataclass(frozen=True)
class DetectorRules:
    """All rules of a detector that are not layers.

    Attributes:
        images: how pictures are prepared.
        ensemble: how scores of detector and CLIP are combined.
        detections: which boxes are returned.
        match: which proposals are positive.
        sample: how many proposals train.
        background_weight: of the background in the classification loss.
    """

    images: ImageRules
    ensemble: EnsembleRules
    detections: DetectionRules = field(default_factory=DetectionRules)
    match: MatchRules = field(default_factory=lambda: MatchRules(0.5, 0.5))
    sample: SampleRules = field(default_factory=lambda: SampleRules(512, 0.25))
    background_weight: float = 1.0


@dataclass(frozen=True)
class Detections:
    """Boxes found in one picture, by falling score.

    Attributes:
        boxes: (n, 4) XYXY in pixels of the picture.
        scores: (n,).
        labels: (n,) int64, indices into the names of the classes.
        masks: bool (n, height, width) at the size of the picture, or None.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None


@dataclass(frozen=True)
class Priorities:
    """Priorities of anchors, proposals and classes in a training: random numbers that a caller may
    fix.

    Attributes:
        anchors: (B, A), or None to draw them.
        boxes: (G_i + N_i,) of each image, annotations before proposals, or None to draw them.
        classes: (K,) of each stage of a cascade, see `federated_keys`, or None to draw them.
    """

    anchors: Tensor | None = None
    boxes: Sequence[Tensor] | None = None
    classes: Sequence[Tensor] | None = None
