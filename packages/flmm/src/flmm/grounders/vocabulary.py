"""A vocabulary for grounders: classes with several phrases, and phrases that compete with them.

The file is the one of clim-models. Letters: K classes, M phrases under `not`, N phrases that are
grounded, H W pixels of the image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clim_models.text import Vocabulary
from torch import Tensor

from flmm.grounders.grounder import ScoredMasks

# Two masks with this IoU are of the same thing.
SAME_THING = 0.5
EMPTY = -1.0  # a logit outside of a mask

VocabularySource = str | Path | Mapping[str, Any] | Sequence[str] | Vocabulary


@dataclass(frozen=True)
class VocabularyPhrases:
    """The phrases that a vocabulary asks a grounder for, and the masks of its classes.

    phrases: N texts, each once: those of the classes, then those under `not`.

    Raises:
        ValueError: a class has example pictures.
    """

    vocabulary: Vocabulary

    def __post_init__(self) -> None:
        for one in self.vocabulary:
            if one.examples:
                raise ValueError(
                    f"class {one.name!r} has example pictures, and an LMM reads words only: give "
                    "it phrases in place of 'examples', or look for it with `clim-eval detect`"
                )

    @classmethod
    def of(cls, source: VocabularySource) -> "VocabularyPhrases":
        """Read a vocabulary file, or take its contents; see `clim_models.text.Vocabulary.of`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: wrong contents, or example pictures.
        """
        if isinstance(source, str | Path):
            return cls(Vocabulary.read(source))
        return cls(Vocabulary.of(source))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return self.vocabulary.names

    @property
    def phrases(self) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for one in self.vocabulary:
            found |= dict.fromkeys(one.phrases)
        return tuple(found | dict.fromkeys(self.vocabulary.rejects))

    def masks(self, found: ScoredMasks) -> ScoredMasks:
        """Turn the masks of the N phrases into those of the K classes.

        A class has mask and score of its best phrase, by score times weight. Where the mask of a
        phrase under `not` of any class covers the same thing (IoU of at least 0.5) and has the
        higher score, the class has an empty mask and the score 0.
        """
        places = {phrase: number for number, phrase in enumerate(self.phrases)}
        scores, values = found.scores, found.scores.tolist()
        chosen = []
        for one in self.vocabulary:
            weighted = {places[phrase]: weight for phrase, weight in one.phrases.items()}
            chosen.append(max(weighted, key=lambda place: values[place] * weighted[place]))

        rejects = [places[phrase] for phrase in self.vocabulary.rejects]
        inside = found.masks > 0
        same = overlaps(inside[chosen], inside[rejects]) >= SAME_THING  # (K, M)
        beaten = (same & (scores[rejects] > scores[chosen][:, None])).any(1)  # (K,)

        masks = found.masks[chosen].masked_fill(beaten[:, None, None], EMPTY)
        written = None
        if found.places is not None:
            written = tuple(found.places[number] for number in chosen)
        kept = scores[chosen].masked_fill(beaten, 0)
        return replace(found, masks=masks, scores=kept, places=written)


def overlaps(masks: Tensor, others: Tensor) -> Tensor:
    """Return the IoU (K, M) of masks bool (K, H, W) with others (M, H, W); 0 for two empty ones."""
    first, second = masks.flatten(1).float(), others.flatten(1).float()
    shared = first @ second.T
    union = first.sum(1)[:, None] + second.sum(1) - shared
    return shared / union.clamp(min=1)
