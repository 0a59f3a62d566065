"""Training the demo LMM to describe scenes, all weights, by the loss of the next word alone.

Two kinds of text: the narrative of a scene from left to right, and its things one by one, in any order, with where they
are ("a cat at top left ."). The second makes the LMM look for a thing when it reads its name, as it must when somebody
grounds phrases of their own. Its places, nine coarse words, come from the centres of the masks; no mask is shown.

Letters: N scenes, T tokens, P side of a scene in pixels.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from clim_data import GroundingSample
from clim_data.images import pixels
from torch import Tensor, nn

from flmm.demo.scenes import COLUMNS, ROWS
from flmm.frames import normalise
from flmm.narratives import IGNORED_LABEL, NO_PHRASE, TokenizedText, tokenize_sample, tokenize_segments
from flmm.prompts import DESCRIBE, STYLES


@dataclass(frozen=True)
class CaptionConfig:
    """How the demo LMM is trained. narratives: share of texts that are narratives. foreign: share of batches whose
    question has words that it does not know, so that any question is answered by a description. bf16: arithmetic in
    bfloat16 (autocast) on float32 weights.
    """

    steps: int = 900
    batch_size: int = 16
    lr: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.05
    narratives: float = 0.75
    foreign: float = 0.2
    bf16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size) < 1:
            raise ValueError(f"steps={self.steps} and batch_size={self.batch_size} must be at least 1")


class CaptionedScenes:
    """Scenes in memory, with their mirror images.

    pixels: uint8 (2 N, 3, P, P), the mirrored ones last. samples: their texts. places: where each phrase is.
    """

    def __init__(self, samples: Sequence[GroundingSample]):
        scenes, places = [], []
        for sample in samples:
            image, masks = sample.load()
            scenes.append(pixels(image))
            places.append([_place(mask) for mask in masks])
        kept = torch.stack(scenes)
        self.pixels = torch.cat([kept, kept.flip(-1)])
        self.samples = [*samples, *(mirrored(sample) for sample in samples)]
        self.places = [*places, *([(row, 2 - column) for row, column in reversed(p)] for p in places)]

    def __len__(self) -> int:
        return len(self.samples)

    def located(self, number: int, order: Sequence[int]) -> list[tuple[str, int]]:
        """Segments of a text that names the phrases in `order`, each with its place."""
        segments = []
        for index, phrase in enumerate(order):
            row, column = self.places[number][phrase]
            text = self.samples[number].phrases[phrase].text
            segments += [(text, index), (f"at {ROWS[row]} {COLUMNS[column]} .", -1)]
        return segments


def mirrored(sample: GroundingSample) -> GroundingSample:
    """The text of a scene's mirror image: the phrases change their order, the words between them stay."""
    phrases = tuple(reversed(sample.phrases))
    segments = tuple((phrases[index].text, index) if index >= 0 else (text, -1) for text, index in sample.segments)
    return replace(sample, segments=segments, phrases=phrases)


def _place(mask: np.ndarray) -> tuple[int, int]:
    """(row, column) of the third of the picture in which a mask's centre is."""
    return tuple(min(int(3 * axis.mean() / size), 2) for axis, size in zip(np.nonzero(mask), mask.shape))


def train_captions(model: nn.Module, tokenizer: Any, scenes: CaptionedScenes, config: CaptionConfig) -> Iterator[float]:
    """Train all weights of a LLaVA in place; yields the loss of every step."""
    rng = np.random.default_rng(config.seed)
    optimizer = optimizer_of(list(model.named_parameters()), config)
    model.train()
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        picked = rng.integers(len(scenes), size=config.batch_size)
        prompt = random_prompt(rng, tokenizer, config.foreign)
        texts = [_text(tokenizer, prompt, scenes, i, rng, config) for i in picked]
        images = brightened(scenes.pixels[picked], rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):  # left each step: it keeps cast weights
            loss = caption_loss(model, tokenizer, images, texts)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield loss.item()
    model.eval()


def random_prompt(rng: np.random.Generator, tokenizer: Any, foreign: float) -> str:
    """The usual request, or with probability `foreign` a question of 2 to 11 unknown words."""
    if rng.random() >= foreign:
        return STYLES["vicuna"].prompt(DESCRIBE)
    return STYLES["vicuna"].prompt(" ".join([tokenizer.unk_token] * rng.integers(2, 12)))


def _text(tokenizer, prompt: str, scenes: CaptionedScenes, number: int, rng, config: CaptionConfig) -> TokenizedText:
    sample = scenes.samples[number]
    if rng.random() < config.narratives:
        return tokenize_sample(tokenizer, prompt, sample)
    order = rng.permutation(len(sample.phrases)).tolist()
    return tokenize_segments(tokenizer, prompt, scenes.located(number, order))


def caption_loss(model: nn.Module, tokenizer: Any, images: Tensor, texts: Sequence[TokenizedText]) -> Tensor:
    """Mean cross-entropy of the answers' words and their ends; images: uint8 or float 0..255 (N, 3, P, P)."""
    inputs, labels = caption_inputs(model, tokenizer, images, texts)
    logits = model(**inputs, use_cache=False).logits[:, :-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels[:, 1:].flatten())


def caption_inputs(
    model: nn.Module, tokenizer: Any, images: Tensor, texts: Sequence[TokenizedText]
) -> tuple[dict[str, Tensor], Tensor]:
    """Arguments of a LLaVA's forward, and labels (N, T), -100 where nothing is to be said."""
    config = model.config
    count = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
    ended = []
    for text in texts:
        end, none = torch.tensor([tokenizer.eos_token_id]), torch.tensor([NO_PHRASE])
        longer = replace(
            text, input_ids=torch.cat([text.input_ids, end]), phrase_ids=torch.cat([text.phrase_ids, none])
        )
        ended.append(longer.expand(config.image_token_id, [count]))
    pad = nn.utils.rnn.pad_sequence
    ids = pad([t.input_ids for t in ended], batch_first=True, padding_value=tokenizer.pad_token_id)
    labels = pad([t.labels for t in ended], batch_first=True, padding_value=IGNORED_LABEL)
    # Padding is on the right of causal attention: no word sees it, so no mask is needed.
    return {"input_ids": ids, "pixel_values": pixel_values(images)}, labels


@torch.no_grad()
def caption_accuracy(
    model: nn.Module, tokenizer: Any, samples: Sequence[GroundingSample], *, batch: int = 64
) -> dict[str, float]:
    """Shares in [0, 1] of narratives: "tokens" (next words told right after the true ones), "names" (of those, the
    last words of phrases), "captions" (narratives all of whose next words are right, which is what greedy generation
    then says).
    """
    right, named, exact = [], [], []
    for start in range(0, len(samples), batch):
        part = samples[start : start + batch]
        texts = [tokenize_sample(tokenizer, STYLES["vicuna"].prompt(DESCRIBE), sample) for sample in part]
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


def brightened(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Each picture with another contrast and brightness, float in 0..255."""
    factor = torch.from_numpy(rng.uniform(0.8, 1.2, (len(images), 1, 1, 1))).float()
    offset = torch.from_numpy(rng.uniform(-20, 20, (len(images), 3, 1, 1))).float()
    return (images.float() * factor + offset).clamp(0, 255)


def learning_rate(step: int, config: CaptionConfig) -> float:
    """Linear warm-up, then half a cosine to 2% of the peak."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    return config.lr * (0.02 + 0.49 * (1 + math.cos(math.pi * done)))


def optimizer_of(named: Sequence[tuple[str, nn.Parameter]], config: CaptionConfig) -> torch.optim.Optimizer:
    """AdamW; vectors and embeddings do not decay."""
    decayed, others = [], []
    for name, parameter in named:
        (decayed if parameter.ndim > 1 and "embed" not in name else others).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))


def pixel_values(images: Tensor) -> Tensor:
    """Pixels 0..255 (N, 3, P, P) as the tower takes them."""
    from flmm.demo.lmm import image_processor

    processor = image_processor()
    return normalise(images, processor.image_mean, processor.image_std)
