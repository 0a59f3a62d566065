"""ReasonSeg: the LMM answers a question, and its answer is grounded (arXiv 2308.00692)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from clim_data import BrokenSample, GroundingSample
from PIL import Image
from torch import Tensor

from flmm.dialogue.answers import ask
from flmm.grounders.grounder import Grounder, SamplePreparer, ScoredMasks
from flmm.text.negation import absent_spans

ASK = "{} Answer with the name of the object or part only."
GROUNDED = ("answer", "question")
LONGEST = 32


@dataclass(frozen=True)
class Question:
    """A question about an image. key: of its sample. ignored: bool (H, W), pixels that are excluded
    from scores."""

    key: str
    text: str
    image: Image.Image
    ignored: Tensor


class QuestionPreparer:
    """Decodes a question's image; the grounder prepares it."""

    def __call__(self, sample: GroundingSample, image: Image.Image) -> Question:
        """Return the question of a sample of `clim_data.ReasoningSegmentation`."""
        source: Any = sample.mask_source
        ignored = torch.from_numpy(source.ignored((image.height, image.width)))
        return Question(sample.key, sample.phrases[0].text, image, ignored)


class ReasoningGrounder:
    """Grounds questions, one after the other.

    The LMM answers a question in a few words, and the whole answer is grounded as one phrase, from
    the features that it was generated with. An answer that names nothing has an empty mask.

    Args:
        grounder: makes the masks.
        what: "answer", or "question" to ground the question's own words without an answer.

    Raises:
        ValueError: `what` is neither.
    """

    def __init__(self, grounder: Grounder, *, what: str = "answer"):
        if what not in GROUNDED:
            raise ValueError(f"what={what!r}; legal values are {', '.join(map(repr, GROUNDED))}")
        self.grounder = grounder
        self.what = what

    @property
    def prepare(self) -> SamplePreparer:
        """Prepares one sample, in a loading process."""
        return QuestionPreparer()

    def for_samples(self) -> "ReasoningGrounder":
        """Return this grounder."""
        return self

    def __call__(self, prepared: Sequence[Question]) -> list[ScoredMasks | BrokenSample]:
        """Ground B questions -> the mask of each; ignored pixels are outside it.

        A question that the LMM cannot read, such as one longer than its context, has a fault.
        """
        return [self._ground(question) for question in prepared]

    def _ground(self, question: Question) -> ScoredMasks | BrokenSample:
        try:
            found = self._found(question)
        except ValueError as fault:
            return BrokenSample("unusable text", question.key, str(fault))
        if found is None:
            size = question.ignored.shape
            return ScoredMasks(torch.full((1, *size), -1.0), torch.zeros(1))
        ignored = question.ignored.to(found.masks.device)
        return ScoredMasks(found.masks.masked_fill(ignored, -1.0), found.scores)

    def _found(self, question: Question) -> ScoredMasks | None:
        """Ground a question or its answer; None where the answer names nothing."""
        if self.what == "question":
            return self.grounder(question.image, [question.text])
        answer = ask(
            self.grounder.lmm, question.image, ASK.format(question.text), max_new_tokens=LONGEST
        )
        words = answer.text.strip().rstrip(".")
        start = answer.text.find(words)
        span = (start, start + len(words))
        if not words or absent_spans(answer.text, [span]):
            return None
        return self.grounder.ground_answer(question.image, answer, [span])
