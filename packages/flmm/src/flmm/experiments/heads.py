"""Training and measuring the heads on the demo LMM's attention.

Letters: N phrases of a scene, H W its size in pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clim_data import GroundingSample, PanopticNarratives
from clim_eval import MaskScores, mask_overlaps, narrative_scores
from clim_models import UNetHead
from clim_train import EngineConfig, RunConfig, ScheduleConfig
from torch import Tensor
from torch.nn import functional as F

from flmm.adapters.frozen import FrozenLMM
from flmm.experiments.listed import ListedThings
from flmm.grounded import GroundedLMM
from flmm.pictures.mean_attention import mean_attention
from flmm.refiners.sam.refiner import SamRefiner
from flmm.samples import SampleMaker
from flmm.training.config import (
    GroundedModelConfig,
    GroundingConfig,
    GroundingDataConfig,
    grounding_optim,
)
from flmm.training.data import GroundingData, GroundingLoader
from flmm.training.task import GroundingTask

HEAD_WIDTH = 16


@dataclass(frozen=True)
class HeadOptions:
    """Training of the heads."""

    steps: int = 700
    batch_size: int = 8
    lr: float = 2e-3

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: train for at least one step")


def build_grounded(lmm: FrozenLMM, sam: Any, *, seed: int = 0) -> GroundedLMM:
    """Build heads with random weights on a demo LMM and a demo SAM, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GroundedLMM(lmm, UNetHead(lmm.map_channels, base=HEAD_WIDTH), SamRefiner(sam))
    return model.eval()


def train_heads(
    model: GroundedLMM,
    scenes: PanopticNarratives,
    options: HeadOptions,
    *,
    folder: Path,
    about: Mapping[str, str],
    seed: int = 0,
) -> dict[str, float]:
    """Train the heads in place, as `flmm train` does; the run folder gets model/heads.safetensors.

    Half of the texts are the scenes' narratives, half are some of their phrases in any order.

    Args:
        about: "lmm" and "sam", the folders they were saved in.

    Returns the last training metrics.
    """
    from clim_train import Trainer

    config = GroundingConfig(
        model=GroundedModelConfig(
            lmm=about["lmm"], lmm_dtype="float32", sam=about["sam"], sam_dtype="float32"
        ),
        data=GroundingDataConfig(batch_size=options.batch_size, workers=0),
        optim=grounding_optim(lr=options.lr),
        schedule=ScheduleConfig(steps=options.steps, warmup_share=0.05, warmup_start=1e-2),
        engine=EngineConfig(precision="fp32"),
        run=RunConfig(
            folder=str(folder), seed=seed, save_every=options.steps, keep=1, tensorboard=False
        ),
    )
    sources: dict[str, GroundingData] = {"scenes": scenes, "listed": ListedThings(scenes, seed)}
    loader = GroundingLoader(
        sources, model.lmm, square=model.sam.square, batch_size=options.batch_size, seed=seed
    )
    metrics = Trainer(config, GroundingTask(model, about=about), loader, program="flmm train").fit()
    model.eval()
    return metrics


@torch.no_grad()
def predict(model: GroundedLMM, sample: GroundingSample) -> dict[str, Tensor]:
    """Of a scene's phrases, float on the CPU: "attention" of the LMM to the image (N, h, w), see
    `flmm.pictures.mean_attention`, and logits (N, H, W), "coarse" of the mask head and "refined" by
    SAM.
    """
    image = sample.load_image()
    (features,) = model.lmm([SampleMaker(model.lmm)(sample, image)], merge=model.merge)
    (found,) = model.ground([features], [image])
    coarse = F.interpolate(
        found.coarse[None].float(), (image.height, image.width), mode="bilinear"
    )[0]
    return {
        "attention": mean_attention(features).cpu(),
        "coarse": coarse.cpu(),
        "refined": found.refined.cpu(),
    }


def evaluate(
    model: GroundedLMM, scenes: PanopticNarratives | ListedThings
) -> dict[str, dict[str, float]]:
    """Return the scores (see `clim_eval.narrative_scores`) of the mask head's masks, of SAM's, and
    of SAM's masks given to the wrong phrases: each phrase gets the mask of the next one of its
    scene. The loss of "shuffled" shows how much masks follow the words, and not just salient
    things; scenes with one phrase do not enter it."""
    scores = {name: MaskScores() for name in ("coarse", "refined", "shuffled")}
    for number in range(len(scenes)):
        sample = scenes[number]
        truth = true_masks(sample)
        found = predict(model, sample)
        del found["attention"]
        found["shuffled"] = found["refined"].roll(1, 0)
        for name, logits in found.items():
            if name != "shuffled" or len(truth) > 1:
                add_scores(scores[name], sample, logits, truth)
    return {name: narrative_scores(of_kind) for name, of_kind in scores.items()}


def evaluate_chance(scenes: PanopticNarratives) -> dict[str, dict[str, float]]:
    """Return the scores of two guesses that look at no word: "whole image", and "all things", the
    union of the true masks of a scene's phrases, which a perfect detector of any object would give
    every phrase."""
    scores = {name: MaskScores() for name in ("whole image", "all things")}
    for number in range(len(scenes)):
        sample = scenes[number]
        truth = true_masks(sample)
        union = truth.any(0, keepdim=True).expand_as(truth)
        for name, guess in (("whole image", torch.ones_like(truth)), ("all things", union)):
            add_scores(scores[name], sample, guess.float() * 2 - 1, truth)
    return {name: narrative_scores(of_kind) for name, of_kind in scores.items()}


def true_masks(sample: GroundingSample) -> Tensor:
    """Return the true masks, bool (N, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(sample.load()[1]))


def add_scores(scores: MaskScores, sample: GroundingSample, logits: Tensor, truth: Tensor) -> None:
    """Count the overlaps of a scene's masks (N, H, W) with the true ones."""
    flags = {
        "is_plural": [phrase.is_plural for phrase in sample.phrases],
        "is_thing": [phrase.is_thing for phrase in sample.phrases],
    }
    scores.add(sample.key, mask_overlaps(logits, truth), **flags)
