"""Pretraining the demo LMM's vision tower on the names in captions, as LLaVA's tower was pretrained on captions (CLIP).

Every patch gives a score for every name, the image's score is the log-sum-exp of its patches', and binary
cross-entropy asks which names the caption has. No place and no mask is told (multiple-instance learning).

Letters: N scenes, K names, t patches, D width of the tower.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from flmm.demo.captions import CaptionConfig, CaptionedScenes, brightened, learning_rate, optimizer_of, pixel_values
from flmm.demo.scenes import CONCEPTS


class NameHead(nn.Module):
    """(N, t, D) patch features -> (N, K) scores of the names in the image."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, len(CONCEPTS))
        nn.init.constant_(self.score.bias, -6.0)  # few names are in an image, and it has many patches

    def forward(self, patches: Tensor) -> Tensor:
        return self.score(self.norm(patches)).logsumexp(1)


def names_in(scenes: CaptionedScenes) -> Tensor:
    """float (N, K): 1 where a scene's caption has the name, singular or plural."""
    rows = []
    for sample in scenes.samples:
        words = {word for phrase in sample.phrases for word in phrase.text.split()}
        rows.append([float(bool(words & {name, f"{name}s", f"{name}es"})) for name in CONCEPTS])
    return torch.tensor(rows)


def train_names(model: nn.Module, scenes: CaptionedScenes, config: CaptionConfig) -> Iterator[tuple[float, float]]:
    """Train the vision tower of a LLaVA in place; yields loss and share of names recalled of every step.

    A name counts as recalled when it is among the image's k best-scored ones, k names being in its caption.
    """
    rng = np.random.default_rng(config.seed)
    tower = model.model.vision_tower.train()
    head, truth = NameHead(tower.config.hidden_size), names_in(scenes)
    named = list(itertools.chain(tower.named_parameters(), head.named_parameters()))
    optimizer = optimizer_of(named, config)
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        picked = rng.integers(len(scenes), size=config.batch_size)
        values = pixel_values(brightened(scenes.pixels[picked], rng))
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):  # left each step: it keeps cast weights
            patches = tower(values, output_hidden_states=True).hidden_states[-1][:, 1:]  # (N, t, D)
        scores = head(patches.float())
        loss = nn.functional.binary_cross_entropy_with_logits(scores, truth[picked])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for _, p in named if p.grad is not None], 1.0)
        optimizer.step()
        yield loss.item(), recalled(scores.detach(), truth[picked])
    tower.eval()


def recalled(scores: Tensor, truth: Tensor) -> float:
    """Share of the true names that are among an image's best-scored, as many as it has."""
    ranks = scores.argsort(1, descending=True).argsort(1)
    hits = (ranks < truth.sum(1, keepdim=True)) & (truth > 0)
    return (hits.sum() / truth.sum()).item()
