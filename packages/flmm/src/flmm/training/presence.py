"""Fitting the presence head, after the other heads, with present and absent phrases.

Letters: N phrases, F numbers of evidence.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from flmm.adapters.features import Sample, join_phrases
from flmm.adapters.tokenizer import tokenizer_of
from flmm.grounded import GroundedLMM
from flmm.heads.presence import PresenceHead, presence_evidence
from flmm.samples import prepare_image
from flmm.text.prompts import DESCRIBE
from flmm.text.tokens import tokenize_expressions

PRESENT, EASY, HARD = "present", "easy", "hard"
KINDS = (PRESENT, EASY, HARD)
RIGHT_IOU = 0.5


@dataclass(frozen=True)
class Probe:
    """A phrase whose presence is known.

    kind: "present"; "easy", absent and of another image; or "hard", absent and close to a present
    thing. mask: the true one, bool (H, W), of a present phrase.
    """

    text: str
    kind: str
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} is not known: choose from {', '.join(KINDS)}")
        if (self.mask is not None) != (self.kind == PRESENT):
            raise ValueError(
                f"{self.text!r}: pass a mask with each present phrase, and with no other"
            )


@dataclass(frozen=True)
class ProbedImage:
    """An image and texts about it. Each text is a list of phrases that the LMM reads together."""

    image: Image.Image
    texts: tuple[tuple[Probe, ...], ...]


@dataclass(frozen=True)
class ProbedPhrases:
    """The results of grounding N probes.

    evidence: (N, F), see `presence_evidence`. ious: (N,) with the true masks, 0 of absent phrases.
    scores: (N,). kinds: of the probes. images: (N,) number of the image of each.
    """

    evidence: Tensor
    ious: np.ndarray
    scores: np.ndarray
    kinds: np.ndarray
    images: np.ndarray

    @property
    def is_right(self) -> np.ndarray:
        """bool (N,): the phrase is present, and its mask is right."""
        return (self.kinds == PRESENT) & (self.ious >= RIGHT_IOU)


@torch.no_grad()
def ground_probes(model: GroundedLMM, images: Iterable[ProbedImage]) -> ProbedPhrases:
    """Ground the phrases of images, the texts of each image in one batch.

    Args:
        model: in evaluation mode.
    """
    lmm, heads = model.lmm, model.heads
    prompt, tokenizer = lmm.family.style.prompt(DESCRIBE), tokenizer_of(lmm)
    evidence: list[Tensor] = []
    rows: list[tuple[float, float, str, int]] = []
    for number, probed in enumerate(images):
        prepared = prepare_image(lmm.family, probed.image)
        samples = []
        for text in probed.texts:
            phrases = [probe.text for probe in text]
            tokens = tokenize_expressions(tokenizer, prompt, phrases, spaced=lmm.family.spaced)
            samples.append(Sample(prepared, tokens))
        features = join_phrases(lmm(samples, merge=model.merge))

        coarse = heads.coarse_masks(features)
        words = heads.text_embeddings(features)
        (found,) = model.sam.refine([probed.image], [coarse], [words])
        evidence.append(presence_evidence(features, coarse, found).cpu())
        scores = heads.scores(features, coarse, found).tolist()

        probes = [probe for text in probed.texts for probe in text]
        masks = (found.masks > 0).cpu().numpy()
        for probe, mask, score in zip(probes, masks, scores, strict=True):
            iou = 0.0
            if probe.mask is not None:
                union = (mask | probe.mask).sum()
                iou = float((mask & probe.mask).sum() / union) if union else 0.0
            rows.append((iou, score, probe.kind, number))
    if not rows:
        raise ValueError("there is no phrase to fit or measure presence on: pass probed images")
    ious, all_scores, kinds, numbers = zip(*rows, strict=True)
    return ProbedPhrases(
        torch.cat(evidence),
        np.array(ious),
        np.array(all_scores),
        np.array(kinds),
        np.array(numbers),
    )


@dataclass(frozen=True)
class PresenceOptions:
    """Options of fitting a presence head.

    held_out: fraction of the images that only the calibration is fitted on.
    """

    epochs: int = 30
    batch_size: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.05
    held_out: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size) < 1:
            raise ValueError(
                f"epochs={self.epochs} and batch_size={self.batch_size} must be at least 1"
            )
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out={self.held_out} must be a share between 0 and 1")


def fit_presence(
    probed: ProbedPhrases, options: PresenceOptions | None = None
) -> tuple[PresenceHead, np.ndarray]:
    """Fit a presence head: cross-entropy on most of the images, then two numbers of calibration
    (Platt scaling) on the others.

    Returns:
        The head, and bool (N,): the phrases of the held-out images.

    Raises:
        ValueError: one part has only right phrases, or none.
    """
    options = options or PresenceOptions()
    rng = np.random.default_rng(options.seed)
    numbers = np.unique(probed.images)
    count = max(round(options.held_out * len(numbers)), 1)
    held_out = np.isin(probed.images, rng.permutation(numbers)[:count])
    right = probed.is_right
    for part in (held_out, ~held_out):
        if not 0 < right[part].sum() < part.sum():
            raise ValueError(
                "presence cannot be fitted: pass more images, with present and absent phrases"
            )

    target = torch.from_numpy(right).float()
    fitted = torch.from_numpy(~held_out)
    evidence = probed.evidence[fitted]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        head = PresenceHead(evidence.shape[1])
        head.mean.copy_(evidence.mean(0))
        head.scale.copy_(evidence.std(0) + 1e-6)
        _train(head, evidence, target[fitted], options)
    _calibrate(head, probed.evidence[~fitted], target[~fitted])
    return head, held_out


def _train(head: PresenceHead, evidence: Tensor, target: Tensor, options: PresenceOptions) -> None:
    """Train the layers in place."""
    layers = head.layers.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(
        layers.parameters(), lr=options.lr, weight_decay=options.weight_decay
    )
    for _ in range(options.epochs):
        for part in torch.randperm(len(evidence)).split(options.batch_size):
            optimizer.zero_grad()
            loss = F.binary_cross_entropy_with_logits(head(evidence[part]), target[part])
            loss.backward()
            optimizer.step()
    head.requires_grad_(False).eval()


def _calibrate(head: PresenceHead, evidence: Tensor, target: Tensor) -> None:
    """Fit slope and offset of the logits in place."""
    logits = head(evidence)
    numbers = torch.tensor([1.0, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([numbers], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(logits * numbers[0] + numbers[1], target)
        value.backward()
        return value

    optimizer.step(loss)
    head.calibration.copy_(numbers.detach())
