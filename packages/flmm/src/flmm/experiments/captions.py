"""Training the demo LMM to describe scenes, all weights, by the loss of the next word alone.

Two kinds of text: the narrative of a scene from left to right, and its things one by one in any
order. After a phrase may stand where its things are ("two bears top left bottom right"): the word
after a name then depends on the place of the named thing, so the LMM learns to look for a thing
when it reads its name. Grounding user phrases needs that. Places, nine coarse ones, are of the
things' centres; no mask is shown.

Letters: N scenes, T tokens, P side of a scene in pixels.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from clim_data import GroundingSample
from clim_data.pixels import pixels
from torch import Tensor, nn

from flmm.adapters.preparers import normalise
from flmm.demo.scenes import COLUMNS, ROWS
from flmm.experiments.painting import PaintedScene, ScenePainter
from flmm.text.prompts import DESCRIBE, STYLES
from flmm.text.tokens import (
    IGNORED_LABEL,
    NO_PHRASE,
    TokenizedText,
    tokenize_sample,
    tokenize_segments,
)
from flmm.transformers_compat import lmm_parts


@dataclass(frozen=True)
class CaptionConfig:
    """How the demo LMM is trained. lists: share of texts that name the things in any order. placed:
    share of phrases that are followed by their places. foreign: share of batches whose question has
    words that it does not know, so that any question is answered by a description. bf16: arithmetic
    in bfloat16 (autocast) on float32 weights.
    """

    steps: int = 900
    batch_size: int = 16
    lr: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.05
    lists: float = 0.35
    placed: float = 0.35
    foreign: float = 0.2
    bf16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size) < 1:
            raise ValueError(
                f"steps={self.steps} and batch_size={self.batch_size} must be at least 1"
            )


def painted_batch(
    painter: ScenePainter, rng: np.random.Generator, count: int, **kinds: Any
) -> tuple[Tensor, list[PaintedScene]]:
    """Paint pictures, each with a random brightness, float 0..255 (N, 3, P, P), and their
    scenes."""
    scenes = [painter.paint(rng, **kinds) for _ in range(count)]
    images = torch.from_numpy(np.stack([scene.pixels for scene in scenes])).permute(0, 3, 1, 2)
    return vary_brightness(images, rng), scenes


def scene_segments(
    scene: PaintedScene, rng: np.random.Generator, config: CaptionConfig
) -> list[tuple[str, int]]:
    """Write the segments of a text about a scene: a narrative or a list, with or without places."""
    if rng.random() < config.lists:
        phrases = [text for text, phrase in scene.segments if phrase >= 0]
        parts: list[tuple[str, int]] = []
        for phrase in rng.permutation(len(phrases)).tolist():
            parts += [(phrases[phrase], phrase), (".", -1)]
    else:
        parts = list(scene.segments)

    told: list[tuple[str, int]] = []
    count = 0
    for text, phrase in parts:
        told.append((text, count if phrase >= 0 else -1))
        count += phrase >= 0
        if phrase >= 0 and rng.random() < config.placed:
            told.append((" ".join(f"{ROWS[y]} {COLUMNS[x]}" for y, x in scene.places[phrase]), -1))
    return told


def train_captions(
    model: nn.Module, tokenizer: Any, painter: ScenePainter, config: CaptionConfig
) -> Iterator[float]:
    """Train all weights of a LLaVA in place; yields the loss of every step."""
    rng = np.random.default_rng(config.seed)
    optimizers = optimizers_of(list(model.named_parameters()), config)
    model.train()
    for step in range(config.steps):
        set_learning_rate(optimizers, learning_rate(step, config))
        images, scenes = painted_batch(painter, rng, config.batch_size)
        prompt = random_prompt(rng, tokenizer, config.foreign)
        texts = [
            tokenize_segments(tokenizer, prompt, scene_segments(scene, rng, config))
            for scene in scenes
        ]
        with torch.autocast(
            "cpu", torch.bfloat16, enabled=config.bf16
        ):  # left each step: it keeps cast weights
            loss = caption_loss(model, tokenizer, images, texts)
        take_step(optimizers, loss, list(model.parameters()))
        yield loss.item()
    model.eval()


def random_prompt(rng: np.random.Generator, tokenizer: Any, foreign: float) -> str:
    """Draw the usual request, or with probability `foreign` a question of 2 to 11 unknown words."""
    if rng.random() >= foreign:
        return STYLES["vicuna"].prompt(DESCRIBE)
    return STYLES["vicuna"].prompt(" ".join([tokenizer.unk_token] * rng.integers(2, 12)))


def caption_loss(
    model: nn.Module, tokenizer: Any, images: Tensor, texts: Sequence[TokenizedText]
) -> Tensor:
    """Compute the mean cross-entropy of the answers' words and their ends; images: uint8 or float
    0..255 (N, 3, P, P)."""
    inputs, labels = caption_inputs(model, tokenizer, images, texts)
    logits = model(**inputs, use_cache=False).logits[:, :-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels[:, 1:].flatten())


def caption_inputs(
    model: nn.Module, tokenizer: Any, images: Tensor, texts: Sequence[TokenizedText]
) -> tuple[dict[str, Tensor], Tensor]:
    """Make the arguments of a LLaVA's forward, and labels (N, T), -100 where no word is learned."""
    config = lmm_parts(model).whole.config
    count = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
    image = torch.full((count,), config.image_token_id)
    ended = []
    for text in texts:
        end, none = torch.tensor([tokenizer.eos_token_id]), torch.tensor([NO_PHRASE])
        longer = replace(
            text,
            input_ids=torch.cat([text.input_ids, end]),
            phrase_ids=torch.cat([text.phrase_ids, none]),
        )
        ended.append(longer.expand(config.image_token_id, [image]))
    pad = nn.utils.rnn.pad_sequence
    ids = pad([t.input_ids for t in ended], batch_first=True, padding_value=tokenizer.pad_token_id)
    labels = pad([t.labels for t in ended], batch_first=True, padding_value=IGNORED_LABEL)
    # Padding is on the right of causal attention: no word sees it, so no mask is needed.
    return {"input_ids": ids, "pixel_values": pixel_values(images)}, labels


@torch.no_grad()
def caption_accuracy(
    model: nn.Module, tokenizer: Any, samples: Sequence[GroundingSample], *, batch: int = 64
) -> dict[str, float]:
    """Return shares in [0, 1] of narratives: "tokens" (right predictions of the next word after the
    true ones), "names" (of those, the last words of phrases), "captions" (narratives all of whose
    next words are right, which is what greedy generation then says)."""
    right, named, exact = [], [], []
    for start in range(0, len(samples), batch):
        part = samples[start : start + batch]
        texts = [
            tokenize_sample(tokenizer, STYLES["vicuna"].prompt(DESCRIBE), sample) for sample in part
        ]
        images = torch.stack([pixels(sample.load_image()) for sample in part])
        inputs, labels = caption_inputs(model, tokenizer, images, texts)
        told = model(**inputs, use_cache=False).logits[:, :-1].argmax(-1)
        labels = labels[:, 1:]
        for text, said, truth in zip(texts, told, labels):
            hit = (said == truth)[truth != IGNORED_LABEL]
            owners = text.phrase_ids[text.prompt_tokens :]
            last = (owners >= 0) & (torch.cat([owners[1:], owners.new_full((1,), -1)]) != owners)
            right.append(hit)
            named.append(hit[: len(owners)][last])
            exact.append(hit.all())
    shares = {"tokens": torch.cat(right), "names": torch.cat(named), "captions": torch.stack(exact)}
    return {name: hits.float().mean().item() for name, hits in shares.items()}


def vary_brightness(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Each picture with another contrast and brightness, float in 0..255."""
    factor = torch.from_numpy(rng.uniform(0.8, 1.2, (len(images), 1, 1, 1))).float()
    offset = torch.from_numpy(rng.uniform(-20, 20, (len(images), 3, 1, 1))).float()
    return (images.float() * factor + offset).clamp(0, 255)


class Descent(Protocol):
    """The options of the optimizers."""

    @property
    def steps(self) -> int: ...

    @property
    def lr(self) -> float: ...

    @property
    def warmup_steps(self) -> int: ...

    @property
    def weight_decay(self) -> float: ...


def learning_rate(step: int, config: Descent) -> float:
    """Linear warm-up, then half a cosine to 2% of the peak."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    return config.lr * (0.02 + 0.49 * (1 + math.cos(math.pi * done)))


def optimizers_of(
    named: Sequence[tuple[str, nn.Parameter]], config: Descent
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, which needs about half the steps of AdamW here, and
    AdamW for the rest."""
    matrices = [
        parameter for name, parameter in named if parameter.ndim == 2 and ".layers." in name
    ]
    inside = {id(parameter) for parameter in matrices}
    others = [parameter for _, parameter in named if id(parameter) not in inside]
    muon = torch.optim.Muon(
        matrices, lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, torch.optim.AdamW(others, lr=config.lr, betas=(0.9, 0.98), weight_decay=0.0)]


def set_learning_rate(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Set the same rate for all; Muon's steps are made as large as AdamW's."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


def take_step(
    optimizers: Sequence[torch.optim.Optimizer], loss: Tensor, parameters: Sequence[nn.Parameter]
) -> None:
    """Backward pass, gradients clipped to a norm of 1, and a step of each optimizer."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([p for p in parameters if p.grad is not None], 1.0)
    for optimizer in optimizers:
        optimizer.step()


def pixel_values(images: Tensor) -> Tensor:
    """Turn pixels 0..255 (N, 3, P, P) into what the tower takes."""
    from flmm.demo.lmm import image_processor

    processor = image_processor()
    return normalise(images, processor.image_mean, processor.image_std)
