"""Masks of phrases by trained heads."""

from collections.abc import Sequence

import torch
from PIL import Image

from flmm.adapters.features import PhraseFeatures, Sample
from flmm.adapters.tokenizer import tokenizer_of
from flmm.grounded import GroundedLMM, Grounding
from flmm.text.prompts import DESCRIBE
from flmm.text.tokens import tokenize_expressions


@torch.no_grad()
def ground_phrases(
    model: GroundedLMM, image: Image.Image, phrases: Sequence[str], *, request: str = DESCRIBE
) -> Grounding:
    """Masks of phrases of one's own, as if the LMM had said them in answer to `request`, one after
    the other.

    Raises:
        ValueError: no phrase, an empty one, or more than the context holds.
    """
    (masks,) = model.ground([phrase_features(model, image, phrases, request=request)], [image])
    return masks


def phrase_features(
    model: GroundedLMM, image: Image.Image, phrases: Sequence[str], *, request: str = DESCRIBE
) -> PhraseFeatures:
    """The frozen LMM's part of `ground_phrases`, which takes the same arguments and raises the
    same."""
    check_phrases(phrases)
    lmm = model.lmm
    text = tokenize_expressions(
        tokenizer_of(lmm), lmm.family.style.prompt(request), list(phrases), spaced=lmm.family.spaced
    )
    (features,) = lmm([Sample(lmm.family.prepare(image), text)], merge=model.merge)
    return features


def check_phrases(phrases: Sequence[str]) -> None:
    """Raises ValueError where there is no phrase, or an empty one."""
    if not phrases:
        raise ValueError("there is nothing to ground: pass at least one phrase")
    if empty := [number for number, phrase in enumerate(phrases, start=1) if not phrase.strip()]:
        raise ValueError(f"phrase {empty[0]} of {len(phrases)} is empty: leave it out")
