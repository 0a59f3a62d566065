"""The presence head: the probability that a phrase is present and its mask right.

It reads results of the other heads, and its gradient does not reach them: masks are the same with
it and without it. It is fitted after them (`flmm.training.presence`).

Letters: N phrases of an image, C maps of a phrase, h w their grid, p q size of coarse logits, H W
pixels of the image, L layers of the LMM, T tokens of the phrases, D its hidden width, F numbers of
evidence.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flmm.adapters.features import PhraseFeatures
from flmm.heads.scores import mask_agreement
from flmm.refiners.refiner import RefinedMasks

HIDDEN = 64
# Logits at which a confident mask still covers a pixel, and an uncertain one begins to.
_SURE = 1.0
_SMALL = 1e-6


def evidence_size(channels: int, width: int) -> int:
    """Return F, the numbers of `presence_evidence` for C maps and hidden states of D."""
    return 11 + 4 * channels + 2 * width


@torch.no_grad()
def presence_evidence(features: PhraseFeatures, coarse: Tensor, found: RefinedMasks) -> Tensor:
    """Collect the evidence for the presence of phrases -> float32 (N, F).

    It is 11 numbers about the masks, 4 about each map of attention (mass, entropy, peak, and the
    share that lies on the mask), and the last layer's hidden states: their mean over the phrase's
    tokens, and the last token's.

    Args:
        coarse: logits (N, p, q) of the mask head. found: the refined masks.
    """
    states = features.states[-1].float()  # (T, D)
    means = [part.mean(0) for part in states.split(list(features.lengths))]
    last = torch.tensor(features.lengths, device=states.device).cumsum(0) - 1
    words = torch.cat([torch.stack(means), states[last]], 1) if means else states.new_zeros(0)
    parts = [_of_masks(coarse.float(), found), _of_maps(features, found.masks)]
    if not len(coarse):
        return parts[0].new_zeros(0, evidence_size(features.maps.shape[1], states.shape[1]))
    return torch.cat([*parts, words], 1)


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


class PresenceHead(nn.Module):
    """Two hidden layers from the evidence of a phrase to the logit of its presence.

    Its parameters take no gradient: `fit_presence` trains a copy, and trainings of the other heads
    leave it alone.

    Args:
        inputs: F, see `evidence_size`.
        hidden: width of the hidden layers.
    """

    mean: Tensor
    scale: Tensor
    calibration: Tensor

    def __init__(self, inputs: int, *, hidden: int = HIDDEN):
        super().__init__()
        self.inputs, self.hidden = inputs, hidden
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
        """Turn evidence (N, F) into logits (N,), calibrated: their sigmoid is a probability."""
        standard = (evidence - self.mean) / self.scale
        slope, offset = self.calibration
        return self.layers(standard)[:, 0] * slope + offset

    def scores(self, evidence: Tensor) -> Tensor:
        """Return the probability (N,) that each phrase is present and its mask right."""
        return self(evidence).sigmoid()

    def facts(self) -> dict[str, int]:
        """Return the options of its constructor."""
        return {"inputs": self.inputs, "hidden": self.hidden}
