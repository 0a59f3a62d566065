"""Ground phrases by the boxes that the LMM itself writes, given to a refiner.

Letters: N phrases of an image, p q grid of coarse logits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from clim_data import BrokenSample, GroundingSample, SkipReport
from PIL import Image
from torch import Tensor

from flmm.adapters.boxes import answered_places, box_format
from flmm.adapters.family import Family
from flmm.adapters.features import Answer
from flmm.adapters.frames import PreparedImage
from flmm.adapters.frozen import FrozenLMM
from flmm.adapters.tokenizer import prompt_ids, tokenizer_of
from flmm.grounders.grounder import ScoredMasks
from flmm.grounders.refining import EmbeddedImages, SampleImage, laid_on
from flmm.pictures.files import read_image
from flmm.refiners.embedding import ImageEmbedding
from flmm.refiners.refiner import Refiner
from flmm.refiners.square import Square
from flmm.samples import prepare_image
from flmm.text.boxes import Place
from flmm.text.phrases import check_phrases
from flmm.text.tokens import special_tokens_in

# Questions that the LMM answers in one batch.
QUESTIONS_PER_PASS = 8
# An answer ends after this number of places, and one without any after `max_new_tokens`.
MOST_PLACES = 50
LONGEST_LIST = 1024  # tokens
NO_BOX = "no box in the answer"


class BoxGrounder:
    """Grounds phrases by asking the LMM for the box of each, in its family's own format.

    Each box of an answer (each point, for families that point) is a prompt of the refiner; the mask
    of a phrase is the union of their masks. A phrase whose answer has none gets an empty mask with
    score 0; `take_unanswered` returns the answer.

    Args:
        lmm: any LMM that this package loads. Families that were never trained to write boxes are
            asked, too; see `flmm.text.boxes`.
        refiner: see `flmm.grounders.refining.box_refiner`.
    """

    def __init__(self, lmm: FrozenLMM, refiner: Refiner):
        tokenizer_of(lmm)
        self.lmm = lmm
        self.refiner = refiner
        self._unanswered = SkipReport()

    @torch.no_grad()
    def __call__(
        self, image: Image.Image | str | Path, phrases: str | Iterable[str]
    ) -> ScoredMasks:
        """Ground phrases that a user wrote, each by itself.

        Raises:
            FileNotFoundError: there is no such image.
            ValueError: the file is no image, or a phrase cannot be asked about.
        """
        upright = read_image(image)
        (found,) = self._ground_upright([upright], [check_phrases(phrases)])
        return laid_on(found, image)

    @torch.no_grad()
    def ground_answer(
        self, image: Image.Image, answer: Answer, spans: Sequence[tuple[int, int]]
    ) -> ScoredMasks:
        """Ground phrases of an answer: the LMM is asked for the box of each."""
        return self(image, [answer.text[start:end] for start, end in spans])

    def take_unanswered(self) -> SkipReport:
        """Return the phrases whose answer had no box, with the answers, since the last call."""
        taken, self._unanswered = self._unanswered, SkipReport()
        return taken

    def _ground_upright(
        self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]
    ) -> list[ScoredMasks]:
        prepared = [prepare_image(self.lmm.family, image) for image in images]
        return self.ground(prepared, phrases, images)

    def ground(
        self,
        prepared: Sequence[PreparedImage],
        phrases: Sequence[Sequence[str]],
        images: Sequence[Image.Image | ImageEmbedding],
        names: Sequence[str] = (),
    ) -> list[ScoredMasks]:
        """Ground the phrases of B images, the questions about all of them in padded batches.

        Args:
            prepared: the images as the LMM takes them, and `images` as the refiner does.
            names: of the images, for `take_unanswered`.
        """
        owners = [i for i, wanted in enumerate(phrases) for _ in wanted]
        texts = [phrase for wanted in phrases for phrase in wanted]
        answers = self.answers([prepared[i] for i in owners], texts)

        places: list[list[tuple[Place, ...]]] = [[] for _ in prepared]
        for i, phrase, answer in zip(owners, texts, answers, strict=True):
            found = answered_places(self.lmm.family, prepared[i], answer)[:MOST_PLACES]
            places[i].append(tuple(found))
            if not found:
                name = f"{names[i]}: {phrase!r}" if names else repr(phrase)
                self._unanswered.add(BrokenSample(NO_BOX, name, f"the LMM wrote {answer[:200]!r}"))

        pointing = box_format(self.lmm.family).pointing
        prompts = []
        for of_image in places:
            prompts.append([prompt_of(found, pointing).to(self.lmm.device) for found in of_image])
        made = self.refiner.refine_places(images, prompts)
        scored = []
        for masks, of_image in zip(made, places, strict=True):
            scored.append(ScoredMasks(masks.masks, masks.ious, places=tuple(of_image)))
        return scored

    def answers(self, images: Sequence[PreparedImage], phrases: Sequence[str]) -> list[str]:
        """Ask for the box of each phrase in its image -> answers, special tokens included."""
        lmm, style = self.lmm, box_format(self.lmm.family)
        tokenizer = tokenizer_of(lmm)

        def decode(ids: Tensor) -> str:
            return tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False)

        def is_enough(ids: Tensor) -> bool:
            places = style.places(decode(ids))
            if not places:
                return len(ids) >= style.max_new_tokens
            # Small models say the same again and again.
            return len(places) >= MOST_PLACES or len(set(places)) < len(places)

        longest = max(style.max_new_tokens, LONGEST_LIST)

        prompts = [self._question(phrase) for phrase in phrases]
        answers = []
        for first in range(0, len(prompts), QUESTIONS_PER_PASS):
            part = slice(first, first + QUESTIONS_PER_PASS)
            written = lmm.answer_all(
                images[part], prompts[part], max_new_tokens=longest, stop=is_enough
            )
            answers += [decode(ids) for ids in written]
        return answers

    def _question(self, phrase: str) -> Tensor:
        if special := special_tokens_in(tokenizer_of(self.lmm), phrase):
            raise ValueError(
                f"the phrase {phrase!r} holds the LMM's own token {special[0]!r}: leave it out"
            )
        question = box_format(self.lmm.family).ask(phrase)
        return prompt_ids(self.lmm, self.lmm.family.style.prompt(question))

    def for_samples(self) -> "BoxSampleGrounder":
        """Return a grounder for the samples of one data set."""
        return BoxSampleGrounder(self)


def prompt_of(places: Sequence[Place], pointing: bool) -> Tensor:
    """Return the places of a phrase as a refiner takes them: boxes (k, 4) or points (k, 2)."""
    edges = 2 if pointing else 4
    return torch.tensor([place[:edges] for place in places]).view(len(places), edges)


@dataclass(frozen=True)
class BoxSample:
    """A sample of a data set as the LMM and the refiner take it. key: of the sample."""

    key: str
    prepared: PreparedImage
    image: SampleImage
    phrases: tuple[str, ...]


@dataclass(frozen=True)
class BoxSamplePreparer:
    """Prepares samples for `BoxSampleGrounder`. square: the refiner's input."""

    family: Family
    square: Square

    def __call__(self, sample: GroundingSample, image: Image.Image) -> BoxSample:
        """Resize the image for the LMM and the refiner.

        Raises:
            BrokenSample: there is no phrase, or an image of a shape that the LMM cannot take.
        """
        if not sample.phrases:
            raise BrokenSample("no phrase", sample.key)
        prepared = prepare_image(self.family, image, sample.key)
        phrases = tuple(phrase.text for phrase in sample.phrases)
        return BoxSample(sample.key, prepared, SampleImage.of(sample, image, self.square), phrases)


class BoxSampleGrounder:
    """Grounds the samples of one data set, each image embedded once for samples in a row."""

    def __init__(self, grounder: BoxGrounder):
        self.prepare = BoxSamplePreparer(grounder.lmm.family, grounder.refiner.square)
        self._grounder = grounder
        self._embed = EmbeddedImages(grounder.refiner)

    @torch.no_grad()
    def __call__(self, prepared: Sequence[BoxSample]) -> list[ScoredMasks]:
        """Ground B prepared samples -> the masks of each."""
        if not prepared:
            return []
        return self._grounder.ground(
            [item.prepared for item in prepared],
            [item.phrases for item in prepared],
            self._embed([item.image for item in prepared]),
            [item.key for item in prepared],
        )
