"""Ground phrases from a few attention heads of a frozen LMM, without any training.

Letters: N phrases of an image, k chosen heads, h w grid of their maps, p q finer grid.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from clim_data import GroundingSample
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from flmm.adapters.features import Answer, PhraseFeatures, Sample
from flmm.adapters.frozen import FrozenLMM
from flmm.grounders.chosen_heads import ChosenHeads
from flmm.grounders.grounder import ScoredMasks
from flmm.grounders.heads import phrase_features
from flmm.grounders.localization import largest_region, smoothed
from flmm.grounders.refining import EmbeddedImages, SampleImage, laid_on, refine_found
from flmm.pictures.files import read_image
from flmm.pictures.mean_attention import FINER
from flmm.refiners.embedding import ImageEmbedding
from flmm.refiners.refiner import Refiner
from flmm.refiners.square import Square
from flmm.samples import SampleMaker
from flmm.text.prompts import DESCRIBE

# The cut between outside and inside, as a fraction of the way from the mean of a map to its
# maximum. The paper cuts at the mean itself, which gives too large boxes on scenes of the training
# vendors.
CUT = 1 / 3
STEEPNESS = 6.0


class AttentionGrounder:
    """Grounds phrases from the attention of a few heads, without training (arXiv 2503.06287).

    The maps of the heads are blurred and summed; the largest region far above their mean is the
    coarse mask, and its box is the refiner's prompt.

    Args:
        lmm: any LMM that this package loads.
        refiner: given boxes only, see `flmm.grounders.refining.box_refiner`.
        heads: see `choose_heads`.
        request: the question that phrases of users and data sets answer.
        each_alone: the LMM reads each phrase of a user by itself, see `ground_phrases`.

    Raises:
        ValueError: the LMM does not have these heads.
    """

    merge = "mean"

    def __init__(
        self,
        lmm: FrozenLMM,
        refiner: Refiner,
        heads: ChosenHeads,
        *,
        request: str = DESCRIBE,
        each_alone: bool = False,
    ):
        heads.check(lmm)
        self.lmm = lmm
        self.refiner = refiner
        self.heads = heads
        self.request = request
        self.each_alone = each_alone

    @torch.no_grad()
    def __call__(
        self, image: Image.Image | str | Path, phrases: str | Iterable[str]
    ) -> ScoredMasks:
        """Ground phrases that a user wrote; arguments and errors are those of `ground_phrases`."""
        upright = read_image(image)
        features = phrase_features(
            self, upright, phrases, request=self.request, each_alone=self.each_alone
        )
        (found,) = self.ground([features], [upright])
        return laid_on(found, image)

    @torch.no_grad()
    def ground_answer(
        self,
        image: Image.Image | ImageEmbedding,
        answer: Answer,
        spans: Sequence[tuple[int, int]],
    ) -> ScoredMasks:
        """Ground phrases of an answer, without running the LMM again."""
        features = answer.phrase_features(spans, merge=self.merge)
        upright = image if isinstance(image, ImageEmbedding) else read_image(image)
        (found,) = self.ground([features], [upright])
        return laid_on(found, image)

    def ground(
        self, features: Sequence[PhraseFeatures], images: Sequence[Image.Image | ImageEmbedding]
    ) -> list[ScoredMasks]:
        """Turn features of phrases into masks of B images."""
        coarse = [self.coarse_masks(of_image) for of_image in features]
        return refine_found(self.refiner, images, coarse)

    def coarse_masks(self, features: PhraseFeatures) -> Tensor:
        """Return (N, p, q) logits over the image."""
        maps = self.heads.maps(features, self.lmm)  # (N, k, h, w)
        count = maps.shape[1]
        blurred = smoothed(maps.flatten(0, 1)).unflatten(0, (-1, count))
        # Otherwise heads that look at nothing but the image would hide the others.
        totals = blurred.sum((2, 3), keepdim=True).clamp(min=torch.finfo(blurred.dtype).tiny)
        summed = (blurred / totals).sum(1, keepdim=True)

        # Padding can end within a token.
        finer = F.interpolate(summed, scale_factor=FINER, mode="bilinear", align_corners=False)
        return region_logits(features.layout.crop(finer[:, 0]))

    def for_samples(self) -> "AttentionSampleGrounder":
        """Return a grounder for the samples of one data set."""
        return AttentionSampleGrounder(self)


def region_logits(heat: Tensor) -> Tensor:
    """Turn maps of heat (N, p, q) into logits, positive in the largest region above the cut."""
    mean, top = heat.mean((1, 2), keepdim=True), heat.amax((1, 2), keepdim=True)
    span = (top - mean).clamp(min=torch.finfo(heat.dtype).tiny)
    height = (heat - mean) / span - CUT  # above 0 is inside
    inside = largest_region(height > 0, height.clamp(min=0))
    return STEEPNESS * torch.where(inside, height, -height.abs())


@dataclass(frozen=True)
class AttentionSamplePreparer:
    """Prepares samples for `AttentionSampleGrounder`. square: the refiner's input."""

    maker: SampleMaker
    square: Square

    def __call__(self, sample: GroundingSample, image: Image.Image) -> tuple[Sample, SampleImage]:
        """Tokenize the text, and resize the image for the LMM and the refiner.

        Raises:
            BrokenSample: as `SampleMaker`.
        """
        return self.maker(sample, image), SampleImage.of(sample, image, self.square)


class AttentionSampleGrounder:
    """Grounds the samples of one data set, each image embedded once for samples in a row."""

    def __init__(self, grounder: AttentionGrounder):
        maker = SampleMaker(grounder.lmm, request=grounder.request)
        self.prepare = AttentionSamplePreparer(maker, grounder.refiner.square)
        self._grounder = grounder
        self._embed = EmbeddedImages(grounder.refiner)

    @torch.no_grad()
    def __call__(self, prepared: Sequence[tuple[Sample, SampleImage]]) -> list[ScoredMasks]:
        """Ground B prepared samples -> the masks of each."""
        if not prepared:
            return []
        features = self._grounder.lmm([sample for sample, _ in prepared])
        return self._grounder.ground(features, self._embed([image for _, image in prepared]))
