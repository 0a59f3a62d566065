"""Images with phrases of users, grounded in batches by any grounder.

Letters: N phrases of an image, H W its pixels.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from clim_data import GroundingSample, Phrase
from PIL import Image

from flmm.grounders.grounder import Grounder, SamplePreparer, ScoredMasks

IMAGES_PER_PASS = 8
MOST_LOGITS = 1 << 28
"""Largest number of full-size logits at a time: 1 GB."""


@dataclass(frozen=True)
class PhraseItem:
    """An upright image with its phrases, ready for a grounder.

    number: of the image. phrases: N of them. size: (H, W). samples: what the `SamplePreparer` of
    the grounder made: one text with all phrases, or one for each.
    """

    number: int
    phrases: tuple[str, ...]
    size: tuple[int, int]
    samples: tuple[Any, ...]

    @property
    def logits(self) -> int:
        """How many logits its masks have."""
        height, width = self.size
        return len(self.phrases) * height * width


@dataclass(frozen=True)
class PhrasePreparer:
    """Prepares images with phrases, in a loading process or in this one.

    prepare: of a grounder's `for_samples()`. each_alone: the LMM reads each phrase by itself.
    """

    prepare: SamplePreparer
    each_alone: bool = False

    def __call__(
        self, number: int, image: Image.Image, phrases: Sequence[str], *, name: str
    ) -> PhraseItem:
        """Prepare an upright image; `name` is what errors call it.

        Raises:
            BrokenSample: the grounder cannot take the image or the phrases.
        """
        texts = [(phrase,) for phrase in phrases] if self.each_alone else [tuple(phrases)]
        samples = []
        for text in texts:
            sample = GroundingSample(
                key=name,
                image_id=number,
                kind="expressions",
                segments=tuple((phrase, place) for place, phrase in enumerate(text)),
                phrases=tuple(Phrase(phrase, False, True, ()) for phrase in text),
                image=b"",  # it is open already
                mask_source=Unknown(len(text)),
            )
            samples.append(self.prepare(sample, image))
        return PhraseItem(number, tuple(phrases), (image.height, image.width), tuple(samples))


@dataclass(frozen=True)
class Unknown:
    """Placeholders for unknown true masks: empty ones."""

    phrases: int

    def masks(self, size: tuple[int, int]) -> np.ndarray:
        """Return empty masks, bool (N, H, W)."""
        return np.zeros((self.phrases, *size), dtype=bool)


class BatchGrounder:
    """Grounds images with phrases: the LMM reads padded batches of texts, the refiner embeds the
    images of a batch together.

    Args:
        grounder: any grounder.
        batch_size: texts, and so at most images, of one pass.
        each_alone: the LMM reads each phrase by itself.

    Raises:
        ValueError: a batch size below 1.
    """

    def __init__(
        self, grounder: Grounder, *, batch_size: int = IMAGES_PER_PASS, each_alone: bool = False
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be a whole number of at least 1")
        self.batch_size = batch_size
        self.grounder = grounder.for_samples()
        self.prepare = PhrasePreparer(self.grounder.prepare, each_alone)

    def __call__(self, items: Iterable[PhraseItem]) -> Iterator[tuple[PhraseItem, ScoredMasks]]:
        """Yield each item with its masks, in order. Masks lie on the upright image.

        Only the masks of one batch are in memory at once.
        """
        batch: list[PhraseItem] = []
        for item in items:
            logits = sum(one.logits for one in [*batch, item])
            if batch and logits > MOST_LOGITS:
                yield from self._ground(batch)
                batch = []
            batch.append(item)
            if sum(len(one.samples) for one in batch) >= self.batch_size:
                yield from self._ground(batch)
                batch = []
        if batch:
            yield from self._ground(batch)

    def _ground(self, items: Sequence[PhraseItem]) -> Iterator[tuple[PhraseItem, ScoredMasks]]:
        samples = [sample for item in items for sample in item.samples]
        found: list[ScoredMasks] = []
        for first in range(0, len(samples), self.batch_size):
            found += self.grounder(samples[first : first + self.batch_size])

        of_text = iter(found)
        for item in items:
            yield item, _joined([next(of_text) for _ in item.samples])


def _joined(parts: Sequence[ScoredMasks]) -> ScoredMasks:
    """Join the masks of the texts of one image."""
    if len(parts) == 1:
        return parts[0]
    masks = torch.cat([part.masks for part in parts])
    scores = torch.cat([part.scores for part in parts])
    places = None
    if parts[0].places is not None:
        places = tuple(found for part in parts for found in part.places or ())
    return replace(parts[0], masks=masks, scores=scores, places=places)
