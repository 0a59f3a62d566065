"""Fitting the presence head, after the other heads, with present and absent phrases.

Letters: N phrases, F numbers of evidence.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from clim_eval.metrics import threshold_for
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
LEAST_SLOPE = 0.01
LONGEST_TEXT = 3


@dataclass(frozen=True)
class Probe:
    """A phrase whose presence is known.

    kind: "present"; "easy", absent and of another image; or "hard", absent and close to what is
    there. mask: the true one, bool (H, W), of a present phrase. change: what makes a hard phrase
    absent, such as "count"; figures are told apart by it.
    """

    text: str
    kind: str
    mask: np.ndarray | None = None
    change: str = ""

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

    @classmethod
    def of(
        cls, image: Image.Image, probes: Sequence[Probe], rng: np.random.Generator
    ) -> "ProbedImage":
        """Put probes in a random order into texts of one to three: a phrase can depend on those
        that the LMM read before it."""
        order = rng.permutation(len(probes))
        texts: list[tuple[Probe, ...]] = []
        while len(order):
            count = int(rng.integers(1, LONGEST_TEXT + 1))
            texts.append(tuple(probes[place] for place in order[:count]))
            order = order[count:]
        return cls(image, tuple(texts))


@dataclass(frozen=True)
class ProbedPhrases:
    """The results of grounding N probes.

    evidence: (N, F), see `presence_evidence`. ious: (N,) with the true masks, 0 of absent phrases.
    scores: (N,). kinds, changes: of the probes. images: (N,) number of the image of each.
    is_empty: bool (N,), the mask has no pixel.
    """

    evidence: Tensor
    ious: np.ndarray
    scores: np.ndarray
    kinds: np.ndarray
    changes: np.ndarray
    images: np.ndarray
    is_empty: np.ndarray

    @property
    def is_right(self) -> np.ndarray:
        """bool (N,): the phrase is present, and its mask is right."""
        return (self.kinds == PRESENT) & (self.ious >= RIGHT_IOU)

    def scored_by(self, head: PresenceHead) -> "ProbedPhrases":
        """Return the same phrases with the scores of a presence head, 0 for empty masks."""
        scores = head.scores(self.evidence).numpy()
        return replace(self, scores=np.where(self.is_empty, 0.0, scores))


@torch.no_grad()
def ground_probes(model: GroundedLMM, images: Iterable[ProbedImage]) -> ProbedPhrases:
    """Ground the phrases of images, the texts of each image in one batch.

    Args:
        model: in evaluation mode.
    """
    lmm, heads = model.lmm, model.heads
    prompt, tokenizer = lmm.family.style.prompt(DESCRIBE), tokenizer_of(lmm)
    evidence: list[Tensor] = []
    rows: list[tuple[float, float, Probe, int, bool]] = []
    for number, probed in enumerate(images):
        if not probed.texts:
            continue
        prepared = prepare_image(lmm.family, probed.image)
        samples = []
        for text in probed.texts:
            phrases = [probe.text for probe in text]
            tokens = tokenize_expressions(tokenizer, prompt, phrases, spaced=lmm.family.spaced)
            samples.append(Sample(prepared, tokens))
        try:
            features = join_phrases(lmm(samples, merge=model.merge))
        except ValueError as fault:
            named = ", ".join(repr(probe.text[:40]) for text in probed.texts for probe in text)
            raise ValueError(f"the phrases {named} of one image: {fault}") from fault

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
            rows.append((iou, score, probe, number, not mask.any()))
    if not rows:
        raise ValueError("there is no phrase to fit or measure presence on: pass probed images")
    ious, all_scores, all_probes, numbers, empty = zip(*rows, strict=True)
    return ProbedPhrases(
        torch.cat(evidence),
        np.array(ious),
        np.array(all_scores),
        np.array([probe.kind for probe in all_probes]),
        np.array([probe.change for probe in all_probes]),
        np.array(numbers),
        np.array(empty),
    )


@dataclass(frozen=True)
class PresenceOptions:
    """Options of fitting a presence head.

    folds: parts of the images that are left out in turn; calibration and threshold are chosen on
    scores of phrases whose images were left out. t_acc: fraction of the present phrases that the
    threshold calls present.
    """

    epochs: int = 60
    batch_size: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.05
    folds: int = 4
    t_acc: float = 0.97
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size) < 1:
            raise ValueError(
                f"epochs={self.epochs} and batch_size={self.batch_size} must be at least 1"
            )
        if self.folds < 2:
            raise ValueError(f"folds={self.folds} must be at least 2")
        if not 0 < self.t_acc <= 1:
            raise ValueError(f"t_acc={self.t_acc} must be a fraction above 0 and at most 1")


def fit_presence(
    probed: ProbedPhrases, options: PresenceOptions | None = None
) -> tuple[PresenceHead, np.ndarray]:
    """Fit a presence head.

    Its layers learn on all images whether a phrase is there. What they say of images that they
    never saw is found by leaving parts of the images out in turn: other layers learn on the rest,
    and read the part. Two numbers of calibration (Platt scaling) turn these logits into the chance
    that the mask is right as well, and the threshold is chosen. Every phrase takes part, so that
    calibration and threshold depend little on chance.

    Returns:
        The head, and (N,) the scores of the phrases by layers that never saw their images.

    Raises:
        ValueError: the evidence has values that are not finite, or without one part of the images
            there are only present phrases, or only absent ones, or no mask is right.
    """
    options = options or PresenceOptions()
    if not (is_finite := probed.evidence.isfinite().all(1)).all():
        raise ValueError(
            f"the evidence of {int((~is_finite).sum())} of {len(is_finite)} phrases is not finite: "
            "the LMM overflows in this precision (--precision fp32), or its weights are damaged"
        )
    present, right = probed.kinds == PRESENT, probed.is_right
    parts = _parts(probed.images, options)
    rests = [present[parts != part] for part in range(options.folds)]
    if not right.any() or any(rest.all() or not rest.any() for rest in rests):
        raise ValueError(
            f"presence cannot be fitted on {len(np.unique(probed.images))} images with "
            f"{present.sum()} present phrases, {right.sum()} of them with a right mask, and "
            f"{(~present).sum()} absent ones: pass more images, with present and absent phrases"
        )

    target = torch.from_numpy(present).float()
    logits = torch.zeros(len(target))
    for part in np.unique(parts):
        is_part = torch.from_numpy(parts == part)
        head = _trained(probed.evidence[~is_part], target[~is_part], options)
        logits[is_part] = head(probed.evidence[is_part])

    head = _trained(probed.evidence, target, options)
    slope, offset = _calibration(logits, torch.from_numpy(right).float())
    head.calibration.copy_(torch.stack([slope, offset]))
    chances = (logits * slope + offset).sigmoid().numpy()
    scores = np.where(probed.is_empty, 0.0, chances)
    head.threshold = threshold_for(scores[present], options.t_acc)
    return head, scores


def _parts(images: np.ndarray, options: PresenceOptions) -> np.ndarray:
    """Deal the images of N phrases to parts, in a random order -> the part of each phrase."""
    numbers, owners = np.unique(images, return_inverse=True)
    order = np.random.default_rng(options.seed).permutation(len(numbers))
    return (order % options.folds)[owners]


def _trained(evidence: Tensor, target: Tensor, options: PresenceOptions) -> PresenceHead:
    """Train the layers of a new head; it is not calibrated."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        head = PresenceHead(evidence.shape[1])
        head.mean.copy_(evidence.mean(0))
        head.scale.copy_(evidence.std(0) + 1e-6)
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
    return head.requires_grad_(False).eval()


def _calibration(logits: Tensor, target: Tensor) -> Tensor:
    """Fit slope and offset of logits to Platt's targets (1999): a little inside 0 and 1, or the
    slope would have no end where the logits part all phrases. It stays positive, also where the
    logits say nothing about new images: a higher logit never gets a lower score."""
    right = float(target.sum())
    highest, lowest = (right + 1) / (right + 2), 1 / (len(target) - right + 2)
    target = lowest + (highest - lowest) * target
    numbers = torch.tensor([1.0, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([numbers], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(logits * numbers[0] + numbers[1], target)
        value.backward()
        return value

    optimizer.step(loss)
    slope, offset = numbers.detach()
    return torch.stack([slope.clamp(min=LEAST_SLOPE), offset])
