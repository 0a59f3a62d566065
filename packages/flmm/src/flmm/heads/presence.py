"""The presence head: the probability that a phrase is present and its mask right.

It reads results of the other heads, and its gradient does not reach them: masks are the same with
it and without it. It is fitted after them (`flmm.training.presence`).

Letters: N phrases of an image, C maps of a phrase, h w their grid, p q size of coarse logits, H W
pixels of the image, L layers of the LMM, T tokens of the phrases, D its hidden width, F numbers of
evidence.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flmm.adapters.features import PhraseFeatures
from flmm.attention.capture import token_owners
from flmm.heads.scores import mask_agreement
from flmm.refiners.refiner import RefinedMasks
from flmm.text.sides import side_of

HIDDEN = 64
# Logits at which a confident mask still covers a pixel, and an uncertain one begins to.
_SURE = 1.0
_SMALL = 1e-6
OF_CHANCES = 10
OF_MASKS = 11
OF_SIDES = 4
LIKELY = 0.5
"""Score from which a phrase is called present where nothing was fitted: more likely than not."""


def evidence_size(channels: int) -> int:
    """Return F, the numbers of `presence_evidence` for C maps."""
    return OF_CHANCES + OF_MASKS + 4 * channels + OF_SIDES


def older_evidence_size(channels: int, width: int) -> int:
    """Return the numbers of `older_evidence` for C maps and hidden states of D."""
    return OF_MASKS + 4 * channels + 2 * width


def legal_sizes(channels: int, width: int) -> dict[int, bool]:
    """Return the numbers that presence heads for C maps and hidden states of D can read, and
    whether they are of `older_evidence`: today's, those before sides were read, and older ones."""
    size = evidence_size(channels)
    return {size: False, size - OF_SIDES: False, older_evidence_size(channels, width): True}


@torch.no_grad()
def presence_evidence(features: PhraseFeatures, coarse: Tensor, found: RefinedMasks) -> Tensor:
    """Collect the evidence for the presence of phrases -> float32 (N, F).

    It is 10 numbers about how much the LMM expected the phrase's tokens before it read them (0
    where that is not known), 11 about the masks, 4 about each map of attention (mass, entropy,
    peak, and the share that lies on the mask), and 4 about the side of the picture that the phrase
    names (0 where it names none).

    Args:
        coarse: logits (N, p, q) of the mask head. found: the refined masks.
    """
    chances = _of_chances(features).to(coarse.device)
    sides = _of_sides(features, found.masks)
    return torch.cat([chances, _of_pixels(features, coarse, found), sides], 1)


@torch.no_grad()
def older_evidence(features: PhraseFeatures, coarse: Tensor, found: RefinedMasks) -> Tensor:
    """Collect the evidence that heads of earlier versions read: the numbers about masks and maps,
    and the last layer's hidden states (their mean over the phrase's tokens, and the last token's).

    Arguments are those of `presence_evidence`. New heads do not read hidden states: they tell
    which thing is named, and heads that learn this by heart do worse on other pictures.
    """
    states = features.states[-1].float()  # (T, D)
    owners = token_owners(features.lengths, states.device)
    lengths = torch.tensor(features.lengths, device=states.device)
    sums = states.new_zeros(len(lengths), states.shape[1]).index_add(0, owners, states)
    words = torch.cat([sums / lengths[:, None], states[lengths.cumsum(0) - 1]], 1)
    return torch.cat([_of_pixels(features, coarse, found), words.to(coarse.device)], 1)


def _of_pixels(features: PhraseFeatures, coarse: Tensor, found: RefinedMasks) -> Tensor:
    """Return the numbers about masks and maps -> (N, 11 + 4 C)."""
    if not len(coarse):
        return found.masks.new_zeros(0, OF_MASKS + 4 * features.maps.shape[1], dtype=torch.float32)
    return torch.cat([_of_masks(coarse.float(), found), _of_maps(features, found.masks)], 1)


def _of_masks(coarse: Tensor, found: RefinedMasks) -> Tensor:
    """Return 11 numbers about the masks of each phrase."""
    refined = found.masks
    inside, rough = (refined > 0).float(), (coarse > 0).float()
    fine_chance, rough_chance = refined.sigmoid(), coarse.sigmoid()
    wide = (refined > -_SURE).flatten(1).sum(1)
    columns = [
        found.ious.float(),
        mask_agreement(coarse, refined),
        (inside.mean((1, 2)) + 1e-4).log(),
        (rough.mean((1, 2)) + 1e-4).log(),
        (fine_chance * inside).sum((1, 2)) / (inside.sum((1, 2)) + _SMALL),
        (rough_chance * rough).sum((1, 2)) / (rough.sum((1, 2)) + _SMALL),
        refined.flatten(1).amax(1) if len(refined) else inside.sum((1, 2)),
        coarse.flatten(1).amax(1) if len(coarse) else rough.sum((1, 2)),
        (refined > _SURE).flatten(1).sum(1) / wide.clamp(min=1),
        rough_chance.mean((1, 2)),
        fine_chance.mean((1, 2)),
    ]
    return torch.stack(columns, 1)


def _of_maps(features: PhraseFeatures, refined: Tensor) -> Tensor:
    """Return 4 numbers about each map -> (N, 4 C). The mask lies in the part of the maps that shows
    the image."""
    maps = features.layout.crop(features.maps.float())  # (N, C, h, w)
    mass = maps.sum((2, 3))
    shares = maps / (mass[..., None, None] + 1e-9)
    entropy = -(shares * (shares + 1e-9).log()).sum((2, 3))
    height, width = maps.shape[-2:]
    covered = F.adaptive_avg_pool2d(refined.sigmoid()[None], (height, width))[0][:, None]
    on_mask = (shares * covered).sum((2, 3))
    return torch.cat([(mass + _SMALL).log(), entropy, shares.amax((2, 3)), on_mask], 1)


def _of_sides(features: PhraseFeatures, refined: Tensor) -> Tensor:
    """Return 4 numbers about the side that each phrase names -> (N, 4): whether it names one,
    across and down, and how far the mask's centre lies towards it, from -1 (at the other edge of
    the picture) to 1."""
    named = [side_of(text) for text in features.wording] or [(0, 0)] * len(refined)
    sides = torch.tensor(named, dtype=torch.float32, device=refined.device).view(-1, 2)
    return torch.cat([sides.abs(), sides * _centres(refined)], 1)


def _centres(refined: Tensor) -> Tensor:
    """Return the centres (N, 2) of masks, across and down: 0 is the middle of the picture, -1 the
    left or top edge. Empty masks have 0."""
    inside = (refined > 0).float()  # (N, H, W)
    centres = []
    for along in (inside.sum(1), inside.sum(2)):  # (N, W), (N, H)
        count = along.shape[1]
        places = (torch.arange(count, device=along.device) + 0.5) * 2 / count - 1
        centres.append((along @ places) / along.sum(1).clamp(min=1))
    return torch.stack(centres, 1)


def _of_chances(features: PhraseFeatures) -> Tensor:
    """Return 10 numbers about the chances of each phrase's tokens -> (N, 10)."""
    phrases = len(features.lengths)
    if features.chances is None:
        return features.states.new_zeros(phrases, OF_CHANCES, dtype=torch.float32)
    own, behind, entropy = features.chances.unbind(1)  # each (T,)
    owners = token_owners(features.lengths, own.device)
    lengths = torch.tensor(features.lengths, device=own.device)
    last = lengths.cumsum(0) - 1

    def total(values: Tensor) -> Tensor:
        return own.new_zeros(phrases).index_add(0, owners, values)

    def lowest(values: Tensor) -> Tensor:
        return own.new_zeros(phrases).scatter_reduce(0, owners, values, "amin", include_self=False)

    columns = [
        total(own),
        total(own) / lengths,
        lowest(own),
        own[last - lengths + 1],
        own[last],
        total(behind),
        lowest(behind),
        behind[last],
        total(entropy) / lengths,
        entropy[last],
    ]
    return torch.stack(columns, 1)


class PresenceHead(nn.Module):
    """Two hidden layers from the evidence of a phrase to the logit of its presence.

    Its parameters take no gradient: `fit_presence` trains a copy, and trainings of the other heads
    leave it alone.

    Args:
        inputs: F, see `evidence_size`; heads of earlier versions have another, see `legal_sizes`.
        hidden: width of the hidden layers.
        threshold: a phrase with a lower score is called "not in the picture".

    Raises:
        ValueError: the threshold is not between 0 and 1.
    """

    mean: Tensor
    scale: Tensor
    calibration: Tensor

    def __init__(self, inputs: int, *, hidden: int = HIDDEN, threshold: float = LIKELY):
        super().__init__()
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold} must be a number from 0 to 1")
        self.inputs, self.hidden = inputs, hidden
        self.threshold = threshold
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.GELU(),
            nn.Dropout(0.2),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Dropout(0.2),
            nn.Linear(hidden, 1),
        )
        self.requires_grad_(False).eval()

    def forward(self, evidence: Tensor) -> Tensor:
        """Turn evidence (N, F) into logits (N,), calibrated: their sigmoid is a chance."""
        standard = (evidence - self.mean) / self.scale
        slope, offset = self.calibration
        return self.layers(standard)[:, 0] * slope + offset

    def scores(self, evidence: Tensor) -> Tensor:
        """Return the probability (N,) that each phrase is present and its mask right."""
        return self(evidence).sigmoid()

    def facts(self) -> dict[str, Any]:
        """Return the options that it is built with."""
        return {"inputs": self.inputs, "hidden": self.hidden, "threshold": self.threshold}
