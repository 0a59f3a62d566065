"""Ground phrases by the trained heads of a frozen LMM."""

from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image

from flmm.adapters.features import PhraseFeatures, Sample
from flmm.adapters.tokenizer import tokenizer_of
from flmm.grounded import GroundedLMM, Grounding
from flmm.pictures.files import read_image
from flmm.text.phrases import check_phrases
from flmm.text.prompts import DESCRIBE
from flmm.text.tokens import tokenize_expressions


@torch.no_grad()
def ground_phrases(
    model: GroundedLMM,
    image: Image.Image | str | Path,
    phrases: str | Iterable[str],
    *,
    request: str = DESCRIBE,
) -> Grounding:
    """Ground user phrases, as if the LMM had written them in answer to `request`.

    The LMM reads the phrases one after the other, so a phrase can depend on those before it.

    Args:
        image: a picture in memory, or its file.
        phrases: one or more texts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no phrase, an empty one, or more than the context holds.
    """
    image = read_image(image)
    (masks,) = model.ground([phrase_features(model, image, phrases, request=request)], [image])
    return masks


def phrase_features(
    model: GroundedLMM,
    image: Image.Image,
    phrases: str | Iterable[str],
    *,
    request: str = DESCRIBE,
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
    text = tokenize_expressions(tokenizer_of(lmm), prompt, wanted, spaced=lmm.family.spaced)

    (features,) = lmm([Sample(lmm.family.prepare(image), text)], merge=model.merge)
    return features
