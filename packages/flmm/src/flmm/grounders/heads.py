"""Ground phrases by the trained heads of a frozen LMM."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from clim_data import GroundingSample
from PIL import Image

from flmm.adapters.features import Answer, PhraseFeatures, Sample, join_phrases
from flmm.adapters.frozen import FrozenLMM
from flmm.adapters.tokenizer import tokenizer_of
from flmm.grounded import GroundedLMM, Grounding, ground_as_given
from flmm.grounders.grounder import ScoredMasks
from flmm.pictures.files import read_image
from flmm.pictures.orientation import orientation_of, turn_back
from flmm.refiners.embedding import ImageEmbedding
from flmm.refiners.square import ResizedImage, Square
from flmm.samples import SampleMaker, prepare_image
from flmm.text.phrases import check_phrases
from flmm.text.prompts import DESCRIBE
from flmm.text.tokens import tokenize_expressions

# Texts about one image that the LMM reads in a batch.
TEXTS_PER_PASS = 8


class HeadsGrounder:
    """Grounds phrases from the LMM's attention: trained heads make coarse masks, SAM refines them.

    Args:
        model: in evaluation mode, see `load_grounded`.
        request: the question that phrases of users and data sets answer.
        each_alone: the LMM reads each phrase of a user by itself, see `ground_phrases`.
    """

    def __init__(self, model: GroundedLMM, *, request: str = DESCRIBE, each_alone: bool = False):
        self.model = model
        self.request = request
        self.each_alone = each_alone

    @property
    def lmm(self) -> FrozenLMM:
        """The LMM that answers in a chat."""
        return self.model.lmm

    def __call__(
        self, image: Image.Image | str | Path, phrases: str | Iterable[str]
    ) -> ScoredMasks:
        """Ground phrases that a user wrote, see `ground_phrases`."""
        found = ground_phrases(
            self.model, image, phrases, request=self.request, each_alone=self.each_alone
        )
        return ScoredMasks(found.refined, found.scores)

    @torch.no_grad()
    def ground_answer(
        self,
        image: Image.Image | ImageEmbedding,
        answer: Answer,
        spans: Sequence[tuple[int, int]],
    ) -> ScoredMasks:
        """Ground phrases of an answer, without running the LMM again.

        Args:
            image: the picture, or SAM's embedding of it (`model.sam.embed`).
            spans: characters (start, end) of each phrase in `answer.text`.
        """
        features = answer.phrase_features(spans, merge=self.model.merge)
        found = ground_as_given(self.model, features, image)
        return ScoredMasks(found.refined, found.scores)

    def for_samples(self) -> "HeadsSampleGrounder":
        """Return a grounder for the samples of one data set."""
        return HeadsSampleGrounder(self.model, request=self.request)


@dataclass(frozen=True)
class PreparedSample:
    """A sample of a data set as the LMM and SAM take it. image_id: of its image, in the data
    set."""

    image_id: int
    sample: Sample
    image: ResizedImage


@dataclass(frozen=True)
class HeadsSamplePreparer:
    """Prepares samples for `HeadsSampleGrounder`. square: the refiner's input."""

    maker: SampleMaker
    square: Square

    def __call__(self, sample: GroundingSample, image: Image.Image) -> PreparedSample:
        """Tokenize the text, and resize the image for the LMM and for SAM.

        Raises:
            BrokenSample: as `SampleMaker`.
        """
        prepared = self.maker(sample, image)
        return PreparedSample(sample.image_id, prepared, ResizedImage.of(image, self.square))


class HeadsSampleGrounder:
    """Grounds the samples of one data set. SAM embeds an image once for all samples in a row that
    have it."""

    def __init__(self, model: GroundedLMM, *, request: str = DESCRIBE):
        self.model = model
        maker = SampleMaker(model.lmm, request=request)
        self.prepare = HeadsSamplePreparer(maker, model.sam.square)
        self._embeddings: dict[int, ImageEmbedding] = {}

    @torch.no_grad()
    def __call__(self, prepared: Sequence[PreparedSample]) -> list[ScoredMasks]:
        """Ground B prepared samples -> the masks of each."""
        if not prepared:
            return []
        embeddings = self._embed({item.image_id: item.image for item in prepared})
        found = self.model(
            [item.sample for item in prepared], [embeddings[item.image_id] for item in prepared]
        )
        return [ScoredMasks(of_image.refined, of_image.scores) for of_image in found]

    def _embed(self, images: dict[int, ResizedImage]) -> dict[int, ImageEmbedding]:
        """Embed the images that the batch before did not have, and forget those it alone had."""
        new = [image_id for image_id in images if image_id not in self._embeddings]
        made = self.model.sam.embed([images[image_id] for image_id in new]) if new else []
        known = self._embeddings | dict(zip(new, made, strict=True))
        self._embeddings = {image_id: known[image_id] for image_id in images}
        return self._embeddings


@torch.no_grad()
def ground_phrases(
    model: GroundedLMM,
    image: Image.Image | str | Path,
    phrases: str | Iterable[str],
    *,
    request: str = DESCRIBE,
    each_alone: bool = False,
) -> Grounding:
    """Ground user phrases, as if the LMM had written them in answer to `request`.

    The LMM sees the picture upright. Masks lie on the picture that was passed: of a picture in
    memory on its pixels as they are stored, of a file on the upright picture.

    Args:
        image: a picture in memory, an array uint8 (H, W, 3), or a file.
        phrases: one or more texts.
        each_alone: the LMM reads each phrase by itself, which costs one pass for each. Without it,
            it reads them one after the other, so a phrase can depend on those before it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no phrase, an empty one, more than the context holds, or an image of a shape
            that the LMM cannot take.
    """
    given = orientation_of(image)
    upright = read_image(image)
    features = phrase_features(model, upright, phrases, request=request, each_alone=each_alone)
    (found,) = model.ground([features], [upright])
    coarse, refined = (turn_back(masks, given) for masks in (found.coarse, found.refined))
    return Grounding(coarse, refined, found.scores)


def phrase_features(
    model: GroundedLMM,
    image: Image.Image,
    phrases: str | Iterable[str],
    *,
    request: str = DESCRIBE,
    each_alone: bool = False,
) -> PhraseFeatures:
    """Compute the frozen LMM's part of `ground_phrases`.

    Raises:
        ValueError: as `ground_phrases`.
    """
    lmm = model.lmm
    prompt = lmm.family.style.prompt(request)
    wanted = check_phrases(phrases)
    for number, phrase in enumerate(wanted, start=1):
        if lmm.family.style.image_token in phrase:
            raise ValueError(
                f"phrase {number} holds the image token {lmm.family.style.image_token!r}: remove it"
            )

    prepared = prepare_image(lmm.family, image)
    texts = [[phrase] for phrase in wanted] if each_alone else [wanted]
    samples = []
    for text in texts:
        tokens = tokenize_expressions(tokenizer_of(lmm), prompt, text, spaced=lmm.family.spaced)
        samples.append(Sample(prepared, tokens))
    features = []
    for first in range(0, len(samples), TEXTS_PER_PASS):
        features += lmm(samples[first : first + TEXTS_PER_PASS], merge=model.merge)
    return features[0] if len(features) == 1 else join_phrases(features)
