"""The ways to masks that the page offers: grounders, and for each of them refined or coarse masks.

Letters: N phrases of an image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from flmm.adapters.features import Answer, PhraseFeatures
from flmm.adapters.frozen import FrozenLMM
from flmm.grounded import GroundedLMM, load_grounded
from flmm.grounders.attention import AttentionGrounder
from flmm.grounders.box import BoxGrounder
from flmm.grounders.grounder import ScoredMasks
from flmm.grounders.heads import HeadsGrounder, phrase_features, scored_masks
from flmm.refiners.coarse_only import CoarseOnly
from flmm.refiners.embedding import ImageEmbedding
from flmm.refiners.refiner import NO_REFINER, Refiner
from flmm.samples import prepare_image
from flmm.text.phrases import Span

MaskGrounder = HeadsGrounder | AttentionGrounder | BoxGrounder
MERGE = "mean"  # of attention that is only shown


@dataclass(frozen=True)
class Choice:
    """A way to masks. grounder: such as "heads". outlines: "refined" or "coarse"."""

    grounder: str
    outlines: str


@dataclass(frozen=True)
class MaskMakers:
    """The grounders of one page, which share an LMM; the first one is the default.

    Raises:
        ValueError: there is none.
    """

    made: Mapping[Choice, MaskGrounder]

    def __post_init__(self) -> None:
        if not self.made:
            raise ValueError("a page needs a grounder: pass one")

    @classmethod
    def of_heads(cls, model: GroundedLMM) -> "MaskMakers":
        """Return the one way of a model with trained heads."""
        return cls({Choice("heads", "refined"): HeadsGrounder(model)})

    @property
    def lmm(self) -> FrozenLMM:
        """The LMM that answers."""
        return next(iter(self.made.values())).lmm

    @property
    def heads(self) -> GroundedLMM | None:
        """The model with trained heads; None where there is none."""
        models = [one.model for one in self.made.values() if isinstance(one, HeadsGrounder)]
        return models[0] if models else None

    def offered(self) -> dict[str, list[str]]:
        """Return the names of the grounders and of the outlines."""
        return {
            "grounders": list(dict.fromkeys(choice.grounder for choice in self.made)),
            "outlines": list(dict.fromkeys(choice.outlines for choice in self.made)),
        }

    def chosen(self, grounder: str = "", outlines: str = "") -> tuple[Choice, MaskGrounder]:
        """Return a way to masks; "" takes the first.

        Raises:
            ValueError: there is no such way.
        """
        for choice, made in self.made.items():
            if grounder in ("", choice.grounder) and outlines in ("", choice.outlines):
                return choice, made
        known = ", ".join(f"{choice.grounder} ({choice.outlines})" for choice in self.made)
        raise ValueError(f"there is no grounder {grounder!r} ({outlines}): choose from {known}")


def refiner_of(grounder: MaskGrounder) -> Refiner:
    """Return the refiner of a grounder."""
    return grounder.model.sam if isinstance(grounder, HeadsGrounder) else grounder.refiner


def coarse_twin(grounder: MaskGrounder, heads: Path | None) -> MaskGrounder:
    """Return the same grounder without a refiner, on the same LMM.

    Args:
        heads: the file of the trained heads, where it has such.
    """
    if isinstance(grounder, BoxGrounder):
        return BoxGrounder(grounder.lmm, CoarseOnly())
    if isinstance(grounder, AttentionGrounder):
        return AttentionGrounder(grounder.lmm, CoarseOnly(), grounder.heads)
    device = str(grounder.lmm.device)
    model = load_grounded(grounder.lmm, sam=NO_REFINER, heads=heads, device=device)
    return HeadsGrounder(model)


def masks_of_phrases(
    grounder: MaskGrounder,
    image: Image.Image,
    embedding: ImageEmbedding,
    phrases: Sequence[str],
    *,
    each_alone: bool,
) -> tuple[ScoredMasks, PhraseFeatures]:
    """Ground phrases of a visitor in an upright picture, and return the attention to show.

    Raises:
        ValueError: the LMM cannot read the phrases.
    """
    reader = grounder.model if isinstance(grounder, HeadsGrounder) else grounder
    if isinstance(reader, BoxGrounder):
        prepared = prepare_image(reader.lmm.family, image)
        (found,) = reader.ground([prepared], [phrases], [embedding])
        reader.take_unanswered()  # the page shows them as not found
        shown = phrase_features(_Reader(reader.lmm), image, phrases, each_alone=each_alone)
        return found, shown
    features = phrase_features(reader, image, phrases, each_alone=each_alone)
    return _from_features(grounder, features, embedding), features


def masks_of_spans(
    grounder: MaskGrounder,
    image: Image.Image,
    embedding: ImageEmbedding,
    answer: Answer,
    spans: Sequence[Span],
) -> tuple[ScoredMasks, PhraseFeatures]:
    """Ground characters (start, end) of an answer about an upright picture, and return the
    attention to show."""
    if isinstance(grounder, BoxGrounder):
        texts = [answer.text[start:end] for start, end in spans]
        prepared = prepare_image(grounder.lmm.family, image)
        (found,) = grounder.ground([prepared], [texts], [embedding])
        grounder.take_unanswered()
        return found, answer.phrase_features(spans, merge=MERGE)
    merge = grounder.model.merge if isinstance(grounder, HeadsGrounder) else grounder.merge
    features = answer.phrase_features(spans, merge=merge)
    return _from_features(grounder, features, embedding), features


def _from_features(
    grounder: MaskGrounder, features: PhraseFeatures, embedding: ImageEmbedding
) -> ScoredMasks:
    if isinstance(grounder, HeadsGrounder):
        (made,) = grounder.model.ground([features], [embedding])
        return scored_masks(grounder.model, made)
    assert isinstance(grounder, AttentionGrounder)
    (found,) = grounder.ground([features], [embedding])
    return found


@dataclass(frozen=True)
class _Reader:
    """Reads phrases for their attention alone."""

    lmm: FrozenLMM
    merge: str = MERGE
