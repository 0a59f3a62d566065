"""Options that all detectors of the quick start share."""

from dataclasses import dataclass

from clim_models.detection import (
    DetectionRules,
    EnsembleRules,
    FViTOptions,
    ProposalRules,
)

from clim_train.experiments.comparison.drawings import SPLITS

BLOCKS = (1, 2, 3, 5)
"""Blocks of clim-tiny that the detectors read: those of the paper, for 6 blocks instead of 12."""

SAMPLED_BOXES, POSITIVE = 32, 0.5
"""Boxes of a scene that train, and the largest fraction of objects among them: a scene has five."""


@dataclass(frozen=True)
class DetectionOptions:
    """How the detectors are trained and measured.

    Attributes:
        split: "test", or "val" for choices.
        steps: of each detector.
        lr: highest learning rate; it follows a cosine.
        batch_size: scenes of a step.
        train_scenes: composed scenes with boxes of base concepts.
        scenes: composed scenes that are measured.
        scene_px: side of a scene.
        classes: only the first base and novel concepts, for a quick look. None for all.
        tower_steps: steps of CLIM, and of image-level training.

    Raises:
        ValueError: an unknown split, or a number below 1.
    """

    split: str = "test"
    steps: int = 200
    lr: float = 2e-3
    batch_size: int = 8
    train_scenes: int = 1000
    scenes: int = 200
    scene_px: int = 192
    classes: int | None = None
    tower_steps: int = 250

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split={self.split!r}; legal values are {SPLITS}")
        for name in ("steps", "batch_size", "train_scenes", "scenes", "scene_px", "tower_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: pass a number of at least 1")
        if self.classes is not None and self.classes < 1:
            raise ValueError(
                f"classes={self.classes}: pass a number of at least 1, or None for all"
            )
        if self.train_scenes < self.batch_size:
            raise ValueError(
                f"train_scenes={self.train_scenes} for batch_size={self.batch_size}: "
                "compose at least one batch of scenes"
            )

    @property
    def fvit(self) -> FViTOptions:
        """F-ViT in small: fewer channels and proposals than the published ones."""
        return FViTOptions(
            image_size=self.scene_px,
            ensemble=EnsembleRules(base=0.1, novel=0.8, temperature=75),
            detections=DetectionRules(score=0.01, overlap=0.4, per_image=100),
            background_weight=0.6,
            training_proposals=ProposalRules(before_nms=500, after_nms=150),
            testing_proposals=ProposalRules(before_nms=300, after_nms=100),
            blocks=BLOCKS,
            channels=32,
        )
