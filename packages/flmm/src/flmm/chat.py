"""Asking a frozen LMM about an image, and grounding the phrases of its answer or of one's own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from flmm.adapters.frozen import FrozenLMM, Generated, PhraseFeatures, Sample
from flmm.grounded import GroundedLMM, Grounding
from flmm.narratives import phrase_token_spans, tokenize_expressions
from flmm.phrases import Chunker, noun_chunks, phrase_spans, spans_to_ground
from flmm.prompts import DESCRIBE
from flmm.sam_refiner import ImageEmbedding

LONGEST_ANSWER = 512


class NoPhrases(ValueError):
    """An answer without a phrase to ground: it is empty, or has no noun chunk."""


@dataclass(frozen=True)
class Answer:
    """What an LMM said.

    text: of all tokens that have features (the last token said is never read; usually it ends the turn).
    offsets: characters (start, end) of each of them. generated: ids, attention and hidden states.
    """

    text: str
    offsets: tuple[tuple[int, int], ...]
    generated: Generated


@dataclass(frozen=True)
class GroundedText:
    """Phrases and their masks, in the same order.

    spans: characters of each phrase in the text. features: what the masks were made of.
    """

    text: str
    phrases: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    masks: Grounding
    features: PhraseFeatures


def ask(lmm: FrozenLMM, image: Image.Image, question: str, *, max_new_tokens: int | None = None) -> Answer:
    """A greedy answer to a question about an image.

    Args:
        max_new_tokens: longest answer; None: 512, or what the LMM's context leaves.

    Raises:
        ValueError: the LMM has no tokenizer, or question and answer do not fit its context.
    """
    ids = prompt_ids(lmm, lmm.family.style.prompt(question))
    prepared = lmm.family.prepare(image)
    if max_new_tokens is None:
        held = lmm.family.layout(prepared).tokens + int((ids != lmm.family.image_token_id).sum())
        left = LONGEST_ANSWER if lmm.context is None else lmm.context - held
        max_new_tokens = min(LONGEST_ANSWER, max(left, 1))
    generated = lmm.generate([prepared], ids, max_new_tokens=max_new_tokens)
    text, offsets = text_and_offsets(generated.ids[: len(generated.maps)].tolist(), plain_decoder(lmm.tokenizer))
    return Answer(text, offsets, generated)


@torch.no_grad()
def ground_answer(
    model: GroundedLMM,
    image: Image.Image | ImageEmbedding,
    answer: Answer,
    phrases: Sequence[str] | None = None,
    *,
    chunker: Chunker = noun_chunks,
) -> GroundedText:
    """Masks of phrases of an answer, without running the LMM again.

    Args:
        image: or SAM's embedding of it (`model.sam.embed`), where it was made already.
        phrases: words as they stand in the answer; None finds its noun chunks by `chunker`.

    Raises:
        NoPhrases: the answer has nothing to ground. ValueError: one of `phrases` is not in it.
    """
    spans = spans_to_ground(answer.text, chunker) if phrases is None else phrase_spans(answer.text, phrases)
    if not spans:
        raise NoPhrases("the answer has no phrase to ground: ask another question, or pass phrases to ground_phrases")
    tokens = phrase_token_spans(answer.offsets, spans, straddling="drop")
    features = answer.generated.phrases(tokens, merge=model.merge)
    (masks,) = model.ground([features], [image])
    return GroundedText(answer.text, tuple(answer.text[a:b] for a, b in spans), tuple(spans), masks, features)


@torch.no_grad()
def ground_phrases(
    model: GroundedLMM, image: Image.Image, phrases: Sequence[str], *, request: str = DESCRIBE
) -> Grounding:
    """Masks of phrases of one's own, as if the LMM had said them in answer to `request`, one after the other.

    Raises:
        ValueError: no phrase, an empty one, or more than the context holds.
    """
    (masks,) = model.ground([phrase_features(model, image, phrases, request=request)], [image])
    return masks


def phrase_features(
    model: GroundedLMM, image: Image.Image, phrases: Sequence[str], *, request: str = DESCRIBE
) -> PhraseFeatures:
    """The frozen LMM's part of `ground_phrases`, which takes the same arguments and raises the same."""
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


def prompt_ids(lmm: FrozenLMM, prompt: str, *, system: bool = True) -> Tensor:
    """Token ids of a prompt, after the family's system text unless `system` is False."""
    text = f"{lmm.family.system}{prompt}" if system else prompt
    return torch.tensor(tokenizer_of(lmm).encode(text))


def tokenizer_of(lmm: FrozenLMM) -> Any:
    """Raises ValueError when the LMM was built without one."""
    if lmm.tokenizer is None:
        raise ValueError("this LMM has no tokenizer: pass one to build_lmm, or use load_lmm")
    return lmm.tokenizer


def plain_decoder(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    """Ids -> text without special tokens, spaces as they are."""
    return lambda ids: tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def text_and_offsets(
    ids: Sequence[int], decode: Callable[[Sequence[int]], str]
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The text of token ids, and the characters (start, end) that each token adds to it.

    By decoding ever longer beginnings: tokenizing the text again may give other tokens than the model said. Tokens
    that are only bytes of a character all get that character.
    """
    text = decode(ids)
    ends = [0]
    for count in range(1, len(ids) + 1):
        ends.append(max(ends[-1], _common_prefix(text, decode(ids[:count]))))
    ends[-1] = len(text)
    spans = list(pairwise(ends))
    for i in range(len(spans) - 2, -1, -1):
        if spans[i][0] == spans[i][1] and spans[i + 1][1] > spans[i + 1][0]:
            spans[i] = spans[i + 1]
    return text, tuple(spans)


def _common_prefix(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
