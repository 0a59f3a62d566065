"""Detectors that the part `detectors` trains: a configuration of each method, on the photographs
and boxes of `training_cases`.

On a GPU they have their published sizes, on a tower or ResNet with random weights. A rehearsal has
narrow ones.
"""

from dataclasses import replace
from typing import Any

from clim_models.detection import C4Detector, TwoStageDetector
from clim_train import EngineConfig, OptimConfig, RunConfig, ScheduleConfig, TrainConfig
from clim_train.recipes import find_recipe

from gpu_parts.record import Part
from gpu_parts.training_cases import TINY_TOWER, Photos

RECIPES = {
    "fvit": "fvit_coco_evab16",
    "fvlm": "fvlm_coco_vitb16",
    "detic": "detic_coco_base",
}
# More boxes than there are.
ALL = 10**6
# Proposals of an image in a rehearsal.
FEW = 6


def detector_config(method: str, part: Part, photos: Photos) -> TrainConfig:
    """Return the recipe of one method at the size of this run."""
    config = find_recipe(RECIPES[method])()
    changes: dict[str, Any] = {"templates": "name"}
    side = 640
    if method == "detic":
        changes["backbone"] = "random"
    if part.tiny:
        side = 64 if method == "detic" else 48
        narrow = {"blocks": (1, 1, 1, 1), "width": 4}
        changes |= narrow if method == "detic" else {"blocks": (0, 0, 1, 1)}
    tower = {"name": TINY_TOWER} if part.tiny else {}
    sources = {"images": str(photos.images), "boxes": str(photos.boxes), "workers": 0}

    return replace(
        config,
        model=replace(config.model, pretrained=None, **tower),
        data=replace(config.data, batch_size=2, image_px=side, classes=None, **sources),
        task=replace(config.task, **changes),
        optim=OptimConfig(lr=1e-4, eps=1e-6, clip_norm=None),
        schedule=ScheduleConfig(steps=30, warmup_steps=2),
        engine=EngineConfig(zero_stage=0, precision="fp32", device=part.device.type),
        run=RunConfig(folder=str(part.folder / method), log_every=1, bar=False, tensorboard=False),
    )


def train_all_boxes(detector: TwoStageDetector | C4Detector, *, tiny: bool) -> None:
    """Let every anchor and proposal train: nothing is drawn, so any device does the same work."""
    rules = detector.rpn.rules
    training = replace(rules.training, after_nms=FEW) if tiny else rules.training
    sample = replace(rules.sample, number=ALL)
    detector.rpn.rules = replace(rules, training=training, sample=sample)
    if isinstance(detector, TwoStageDetector):
        sample = replace(detector.rules.sample, number=ALL)
        detector.rules = replace(detector.rules, sample=sample)
    else:
        sample = replace(detector.options.box_sample, number=ALL)
        detector.options = replace(detector.options, box_sample=sample)
