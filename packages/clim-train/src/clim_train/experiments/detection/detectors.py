"""One detector: its tower, the parts on it, and its run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from clim_data.drawings import write_emoji_shards
from clim_eval import weights_of_run
from clim_models import RegionModel
from clim_models.detection import ClassSet, TwoStageDetector, build_fvit
from torch import Tensor

from clim_train.config import TrainConfig
from clim_train.experiments.comparison.arms import ArmOptions
from clim_train.experiments.comparison.data import ComparisonData, TrainingData
from clim_train.experiments.comparison.plan import Plan
from clim_train.experiments.comparison.quickstart import ARMS, QuickstartOptions
from clim_train.experiments.comparison.runner import ArmRunner
from clim_train.experiments.detection.options import (
    BLOCKS,
    POSITIVE,
    SAMPLED_BOXES,
    DetectionOptions,
)
from clim_train.experiments.detection.scenes import DetectionScenes, scene_boxes
from clim_train.experiments.detection.stored import SceneLoader, StoredMaps, StoredMapsTask
from clim_train.methods.fvit import FViTConfig
from clim_train.methods.views import DetectionDataConfig
from clim_train.options.sections import (
    EngineConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
)


@dataclass(frozen=True)
class Backbone:
    """A tower under a detector.

    Attributes:
        title: its row in the tables.
        arm: the arm of the quick start that trains it; None for the shipped clim-tiny.
    """

    title: str
    arm: str | None


BACKBONES: Mapping[str, Backbone] = {
    "start": Backbone("pretrained clim-tiny", None),
    "image": Backbone("+ image-level training", "image"),
    "clim": Backbone("+ CLIM", "clim"),
}


def tower_options(options: DetectionOptions) -> ArmOptions:
    """Return the options of the quick start with which the towers are trained."""
    return QuickstartOptions(steps=options.tower_steps).arm_options()


class Towers:
    """The image towers, trained as the quick start does, as far as `folder` lacks them.

    Args:
        model: has the shipped weights, before and after each call.
        folder: of the towers' runs; it may be the folder of `hatch run quickstart --train`.
    """

    def __init__(self, model: RegionModel, options: ArmOptions, folder: Path) -> None:
        pairs = tuple(str(path) for path in write_emoji_shards(folder / "data" / "pairs"))
        nothing = ComparisonData(TrainingData(pairs), (), {}, {})
        arms = {one.arm: ARMS[one.arm] for one in BACKBONES.values() if one.arm}
        plan = Plan(options, {}, arms, mixed=())
        self.runner = ArmRunner(model, nothing, plan, folder)

    def weights(self, backbone: Backbone, seed: int) -> tuple[dict[str, Tensor], str]:
        """Return the weights of a tower, and the `pretrained` with which `create_model` loads the
        same."""
        start = self.runner.start
        if backbone.arm is None:
            return start, "emoji"
        self.runner.run(backbone.arm, seed)
        folder = self.runner.run_folder(backbone.arm, seed)
        return {**start, **weights_of_run(folder).student}, str(folder)


def build_detector(
    model: RegionModel, classes: ClassSet, background: Tensor, options: DetectionOptions
) -> TwoStageDetector:
    """Build an F-ViT with random heads, drawn from torch's generator, on the tower of `model`."""
    detector = build_fvit(model, classes, options.fvit, background=background)
    sample = replace(detector.rules.sample, number=SAMPLED_BOXES, positive_fraction=POSITIVE)
    detector.rules = replace(detector.rules, sample=sample)
    return detector


def train_detector(
    detector: TwoStageDetector, maps: StoredMaps, config: TrainConfig, scenes: DetectionScenes
) -> None:
    """Train the parts of a detector outside its tower, or continue such a training.

    Args:
        maps: of the detector's tower, of `scenes.train`.
    """
    # deepspeed is imported by the trainer: it takes seconds, and --help has no use for it.
    from clim_train.trainer import Trainer

    boxes, labels = scene_boxes(scenes.train)
    loader = SceneLoader(boxes, labels, batch_size=config.data.batch_size, seed=config.run.seed)
    begun = (Path(config.run.folder) / "config.json").exists()
    Trainer(config, StoredMapsTask(detector, maps), loader, resume=begun).fit()


def detector_config(
    options: DetectionOptions, scenes: DetectionScenes, *, pretrained: str, folder: Path, seed: int
) -> TrainConfig:
    """Return the run of a detector.

    Args:
        pretrained: of the tower, as `create_model` takes it.
    """
    on_gpu = torch.cuda.is_available()
    return TrainConfig(
        model=ModelConfig(name="clim-tiny", pretrained=pretrained, unlocked_blocks=0),
        data=DetectionDataConfig(
            images=str(scenes.train.images),
            boxes=str(scenes.train.instances_json),
            batch_size=options.batch_size,
            image_px=options.scene_px,
        ),
        task=FViTConfig(blocks=BLOCKS),
        optim=OptimConfig(
            lr=options.lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1, clip_norm=1.0
        ),
        schedule=ScheduleConfig(
            kind="cosine", steps=options.steps, warmup_steps=max(1, options.steps // 10)
        ),
        engine=EngineConfig(precision="amp_bf16" if on_gpu else "fp32"),
        run=RunConfig(
            folder=str(folder),
            seed=seed,
            save_every=min(options.steps, 100),
            log_every=5,
            tensorboard=False,
        ),
    )
