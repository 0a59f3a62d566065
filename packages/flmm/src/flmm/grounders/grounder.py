"""The interface of a grounder: an image and phrases in, a mask of each phrase out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from clim_data import GroundingSample, SkipReport
from PIL import Image
from torch import Tensor

from flmm.adapters.features import Answer
from flmm.adapters.frozen import FrozenLMM
from flmm.text.boxes import Place


@dataclass(frozen=True)
class ScoredMasks:
    """Masks of the N phrases of an image, in the order of the phrases.

    masks: float32 logits (N, H, W) in pixels of the original image; positive is inside.
    scores: (N,) in [0, 1], the confidence in each; 0 where nothing was found. kind: "presence" for
    scores that are probabilities, fitted with absent phrases, else "geometric". places: of each
    phrase the boxes (left, top, right, bottom) that the LMM wrote, or its points with both corners
    at (x, y), in the pixels of the masks; None where it was not asked. absent_below:
    phrases with a lower score are "not in the picture"; 0 for geometric scores.
    """

    masks: Tensor
    scores: Tensor
    kind: str = "geometric"
    places: tuple[tuple[Place, ...], ...] | None = None
    absent_below: float = 0.0

    def in_picture(self) -> list[bool] | None:
        """Judge for each of the N phrases whether it is in the picture; None where scores cannot
        tell."""
        if self.kind != "presence":
            return None
        return [score >= self.absent_below for score in self.scores.tolist()]

    def logits(self, min_score: float = 0.0) -> Tensor:
        """Return logits (N, H, W), negative everywhere for scores below `min_score`."""
        if min_score <= 0:
            return self.masks
        return self.masks.masked_fill((self.scores < min_score)[:, None, None], -1.0)

    def binary(self, min_score: float = 0.0) -> Tensor:
        """Return masks bool (N, H, W), empty for scores below `min_score`."""
        return self.logits(min_score) > 0


NOT_IN_PICTURE = "not in the picture"
"""The words of terminal, page and pictures for phrases below `ScoredMasks.absent_below`."""


def absent_phrases(phrases: Sequence[str], in_picture: Sequence[bool] | None) -> list[str]:
    """List the phrases that are judged not to be in the picture, each once."""
    if in_picture is None:
        return []
    absent = [text for text, present in zip(phrases, in_picture, strict=True) if not present]
    return list(dict.fromkeys(absent))


class PhraseReader(Protocol):
    """A frozen LMM, and the way to merge the attention of a phrase's tokens into one map."""

    @property
    def lmm(self) -> FrozenLMM:
        """The LMM that reads."""
        ...

    @property
    def merge(self) -> str:
        """ "mean" or "max", see `FrozenLMM.forward`."""
        ...


@runtime_checkable
class AsksTheLMM(Protocol):
    """A grounder that asks the LMM a question, whose answer may be useless."""

    def take_unanswered(self) -> SkipReport:
        """Return the phrases that got no mask for that reason, with the answers, since the last
        call."""
        ...


class SamplePreparer(Protocol):
    """Prepares a sample of a data set for the model. Loading processes get a copy of it, so it
    holds no model."""

    def __call__(self, sample: GroundingSample, image: Image.Image) -> Any:
        """Return an item for `SampleGrounder`.

        Raises:
            BrokenSample: the sample cannot be grounded.
        """
        ...


class SampleGrounder(Protocol):
    """Grounds the samples of one data set, a batch at a time. It may store results of an image for
    the next samples."""

    @property
    def prepare(self) -> SamplePreparer:
        """Prepares one sample, in a loading process."""
        ...

    def __call__(self, prepared: Sequence[Any]) -> list[ScoredMasks]:
        """Ground B prepared samples -> the masks of each."""
        ...


class Grounder(Protocol):
    """Grounds the phrases of a frozen LMM.

    `HeadsGrounder`, `BoxGrounder` and `AttentionGrounder` are three. A new one is a class with
    these members; one that asks the LMM is also an `AsksTheLMM`.
    """

    @property
    def lmm(self) -> FrozenLMM:
        """The LMM that answers in a chat."""
        ...

    def __call__(
        self, image: Image.Image | str | Path, phrases: str | Iterable[str]
    ) -> ScoredMasks:
        """Ground phrases that a user wrote.

        Raises:
            FileNotFoundError: there is no such image.
            ValueError: the file is no image, or a phrase cannot be grounded.
        """
        ...

    def ground_answer(
        self, image: Image.Image, answer: Answer, spans: Sequence[tuple[int, int]]
    ) -> ScoredMasks:
        """Ground phrases of an answer that `lmm` gave about this image.

        Args:
            spans: characters (start, end) of each phrase in `answer.text`.
        """
        ...

    def for_samples(self) -> SampleGrounder:
        """Return a grounder for the samples of one data set."""
        ...
