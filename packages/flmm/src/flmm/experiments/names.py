"""Pretraining the demo LMM's vision tower on the names in captions, as LLaVA's tower was pretrained
on captions (CLIP).

Every patch gives a score for every name, the image's score is the log-sum-exp of its patches', and
binary cross-entropy asks which names the caption has. No place and no mask is given
(multiple-instance learning).

Letters: N scenes, K names, t patches, D width of the tower.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from clim_data.drawings import plural
from torch import Tensor, nn

from flmm.demo.scenes import CONCEPTS
from flmm.experiments.captions import (
    CaptionConfig,
    learning_rate,
    optimizers_of,
    painted_batch,
    pixel_values,
    set_learning_rate,
    take_step,
)
from flmm.experiments.painting import PaintedScene, ScenePainter
from flmm.transformers_compat import lmm_parts

# The first share of the steps has small pictures of one thing each, several for the price of a
# scene.
SINGLE = 0.55
SMALL_PX = 40
PER_SCENE = 3


class NameHead(nn.Module):
    """(N, t, D) patch features -> (N, K) scores of the names in the image."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, len(CONCEPTS))
        nn.init.constant_(
            self.score.bias, -6.0
        )  # few names are in an image, and it has many patches

    def forward(self, patches: Tensor) -> Tensor:
        return self.score(self.norm(patches)).logsumexp(1)


def names_in(scenes: Sequence[PaintedScene]) -> Tensor:
    """Return float (N, K): 1 where a scene's narrative has the name, singular or plural."""
    rows = []
    for scene in scenes:
        words = {word for text, phrase in scene.segments if phrase >= 0 for word in text.split()}
        rows.append([float(bool(words & {name, plural(name)})) for name in CONCEPTS])
    return torch.tensor(rows)


def train_names(
    model: nn.Module, painter: ScenePainter, config: CaptionConfig
) -> Iterator[tuple[float, float]]:
    """Train the vision tower of a LLaVA in place; yields loss and share of names recalled of every
    step.

    A name counts as recalled when it is among the image's k best-scored ones, k names being in its
    caption.
    """
    rng = np.random.default_rng(config.seed)
    parts = lmm_parts(model)
    tower = model.get_submodule("model.vision_tower").train()
    head = NameHead(parts.whole.config.vision_config.hidden_size)

    named = list(itertools.chain(tower.named_parameters(), head.named_parameters()))
    optimizers = optimizers_of(named, config)
    for step in range(config.steps):
        set_learning_rate(optimizers, learning_rate(step, config))

        small = step < SINGLE * config.steps
        if small:
            count = PER_SCENE * config.batch_size
            images, scenes = painted_batch(painter, rng, count, most=1, pairs=0.0, side=SMALL_PX)
        else:
            images, scenes = painted_batch(painter, rng, config.batch_size)

        truth = names_in(scenes)
        with torch.autocast(
            "cpu", torch.bfloat16, enabled=config.bf16
        ):  # left each step: it keeps cast weights
            found = tower(
                pixel_values(images), output_hidden_states=True, interpolate_pos_encoding=small
            )

        scores = head(
            found.hidden_states[-1][:, 1:].float()
        )  # without the class token: (N, t, D) -> (N, K)

        loss = nn.functional.binary_cross_entropy_with_logits(scores, truth)
        take_step(optimizers, loss, [p for _, p in named])
        yield loss.item(), name_recall(scores.detach(), truth)
    tower.eval()


def name_recall(scores: Tensor, truth: Tensor) -> float:
    """Share of the true names that are among an image's best-scored, as many as it has."""
    ranks = scores.argsort(1, descending=True).argsort(1)
    hits = (ranks < truth.sum(1, keepdim=True)) & (truth > 0)
    return (hits.sum() / truth.sum()).item()
