"""Ground phrases by the trained heads of a frozen LMM."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import torch
from clim_data import GroundingSample
from PIL import Image

from flmm.adapters.features import Answer, PhraseFeatures, Sample, join_phrases
from flmm.adapters.frozen import FrozenLMM
from flmm.adapters.tokenizer import tokenizer_of
from flmm.grounded import GroundedLMM, Grounding, ground_as_given
from flmm.grounders.grounder import PhraseReader, ScoredMasks
from flmm.pictures.files import Picture, Pictures, read_image
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

    @property
    def knows(self) -> Mapping[str, Any] | None:
        """The things that the heads know, if their file names them; see
        `flmm.heads.facts.KNOWS`."""
        return self.model.heads.knows

    def __call__(
        self, image: Image.Image | str | Path, phrases: str | Iterable[str]
    ) -> ScoredMasks:
        """Ground phrases that a user wrote, see `ground_phrases`."""
        found = ground_phrases(
            self.model, image, phrases, request=self.request, each_alone=self.each_alone
        )
        return scored_masks(self.model, found)

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
        return scored_masks(self.model, found)

    def for_samples(self) -> "HeadsSampleGrounder":
        """Return a grounder for the samples of one data set."""
        return HeadsSampleGrounder(self.model, request=self.request)


def scored_masks(model: GroundedLMM, found: Grounding) -> ScoredMasks:
    """Return the refined masks of a grounding, and the meaning of their scores."""
    heads = model.heads
    return ScoredMasks(
        found.refined, found.scores, heads.score_kind, absent_below=heads.absent_below
    )


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
        return [scored_masks(self.model, of_image) for of_image in found]

    def _embed(self, images: dict[int, ResizedImage]) -> dict[int, ImageEmbedding]:
        """Embed the images that the batch before did not have, and forget those it alone had."""
        new = [image_id for image_id in images if image_id not in self._embeddings]
        made = self.model.sam.embed([images[image_id] for image_id in new]) if new else []
        known = self._embeddings | dict(zip(new, made, strict=True))
        self._embeddings = {image_id: known[image_id] for image_id in images}
        return self._embeddings


@overload
def ground_phrases(
    model: GroundedLMM,
    image: Picture,
    phrases: str | Iterable[str],
    *,
    request: str = ...,
    each_alone: bool = ...,
    batch_size: int | None = ...,
) -> Grounding: ...


@overload
def ground_phrases(
    model: GroundedLMM,
    image: Pictures,
    phrases: str | Iterable[str] | Iterable[Iterable[str]],
    *,
    request: str = ...,
    each_alone: bool = ...,
    batch_size: int | None = ...,
) -> list[Grounding]: ...


@torch.no_grad()
def ground_phrases(
    model: GroundedLMM,
    image: Picture | Pictures,
    phrases: str | Iterable[str] | Iterable[Iterable[str]],
    *,
    request: str = DESCRIBE,
    each_alone: bool = False,
    batch_size: int | None = None,
) -> Grounding | list[Grounding]:
    """Ground user phrases, as if the LMM had written them in answer to `request`.

    The LMM sees the picture upright. Masks lie on the picture that was passed: of a picture in
    memory on its pixels as they are stored, of a file on the upright picture.

    Args:
        image: a picture in memory, an array uint8 (H, W, 3), or a file; or a list of them, which
            are grounded in batches.
        phrases: one or more texts. Of a list of images: texts that every image has, or one list of
            texts for each image.
        each_alone: the LMM reads each phrase by itself, which costs one pass for each. Without it,
            it reads them one after the other, so a phrase can depend on those before it.
        batch_size: texts that the LMM reads, and images that the refiner embeds, in one pass; None
            chooses `images_per_pass`.

    Returns:
        The masks, or of a list of images a list with the masks of each.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no phrase, an empty one, more than the context holds, or an image of a shape
            that the LMM cannot take.
    """
    one = not isinstance(image, list | tuple)
    images: list[Picture] = list(image) if isinstance(image, list | tuple) else [image]
    at_once = images_per_pass(model.lmm.device) if batch_size is None else batch_size
    if at_once < 1:
        raise ValueError(f"batch_size={batch_size} must be a whole number of at least 1")
    wanted = phrases_of_each(phrases, len(images))
    reading = Reading(request, each_alone, batch_size or TEXTS_PER_PASS)

    found: list[Grounding] = []
    for first in range(0, len(images), at_once):
        part = slice(first, first + at_once)
        turns = [orientation_of(given) for given in images[part]]
        upright = [read_image(given) for given in images[part]]
        features = features_of_images(model, upright, wanted[part], reading)
        for masks, turn in zip(model.ground(features, upright), turns, strict=True):
            coarse, refined = (turn_back(logits, turn) for logits in (masks.coarse, masks.refined))
            found.append(Grounding(coarse, refined, masks.scores))
    return found[0] if one else found


def images_per_pass(device: torch.device | str) -> int:
    """Choose how many images are grounded at once: 8 on a GPU, and one after the other on a CPU.

    A CPU is busy with one image already (`benchmarks/grounding_batches.py`).
    """
    return 1 if str(device).startswith("cpu") else 8


def phrases_of_each(
    phrases: str | Iterable[str] | Iterable[Iterable[str]], images: int
) -> list[list[str]]:
    """Return the phrases of each of several images.

    Args:
        phrases: texts that every image has, or one list of texts for each image.
        images: how many images there are.

    Raises:
        ValueError: another number of lists than images, no phrase, or an empty one.
    """
    if not isinstance(phrases, Iterable):
        raise ValueError(f'phrases are {phrases!r}: pass texts, such as ["a red car"]')
    given = [phrases] if isinstance(phrases, str) else list(phrases)
    if not all(isinstance(texts, Iterable) for texts in given):
        raise ValueError(f"phrases are {str(given)[:60]}: pass texts, or a list of texts for each")
    shared = [texts for texts in given if isinstance(texts, str)]
    if len(shared) == len(given):
        return [check_phrases(shared)] * images

    if len(given) != images or shared:
        raise ValueError(
            f"{len(given)} lists of phrases for {images} images: pass one list for each image, or "
            "texts that all images have"
        )
    return [check_phrases(texts) for texts in given]


def phrase_features(
    model: PhraseReader,
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
    reading = Reading(request, each_alone)
    return features_of_images(model, [image], [check_phrases(phrases)], reading)[0]


@dataclass(frozen=True)
class Reading:
    """Options of reading phrases: the request before them, whether each phrase is read alone, and
    the number of texts in one pass."""

    request: str = DESCRIBE
    each_alone: bool = False
    batch_size: int = TEXTS_PER_PASS


def features_of_images(
    model: PhraseReader,
    images: Sequence[Image.Image],
    phrases: Sequence[Sequence[str]],
    reading: Reading,
) -> list[PhraseFeatures]:
    """Compute the frozen LMM's part of `ground_phrases` for upright images and the phrases of each.

    Raises:
        ValueError: as `ground_phrases`.
    """
    samples: list[Sample] = []
    texts = []  # of each image
    for number, (image, wanted) in enumerate(zip(images, phrases, strict=True), start=1):
        name = "the image" if len(images) == 1 else f"image {number}"
        own = samples_of_image(model.lmm, image, wanted, reading, name=name)
        samples += own
        texts.append(len(own))

    read: list[PhraseFeatures] = []
    for first in range(0, len(samples), reading.batch_size):
        read += model.lmm(samples[first : first + reading.batch_size], merge=model.merge)

    features = []
    for count in texts:
        features.append(join_phrases(read[:count]))
        read = read[count:]
    return features


def samples_of_image(
    lmm: FrozenLMM, image: Image.Image, phrases: Sequence[str], reading: Reading, *, name: str
) -> list[Sample]:
    """Make the LMM's samples of an upright image: one with all phrases, or one for each.

    Raises:
        ValueError: a phrase holds the image token, or as `prepare_image`.
    """
    token = lmm.family.style.image_token
    for number, phrase in enumerate(phrases, start=1):
        if token in phrase:
            raise ValueError(f"phrase {number} holds the image token {token!r}: remove it")

    prepared = prepare_image(lmm.family, image, name)
    prompt = lmm.family.style.prompt(reading.request)
    samples = []
    for text in [[phrase] for phrase in phrases] if reading.each_alone else [phrases]:
        tokens = tokenize_expressions(tokenizer_of(lmm), prompt, text, spaced=lmm.family.spaced)
        samples.append(Sample(prepared, tokens))
    return samples
