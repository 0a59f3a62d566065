"""Asking a frozen LMM about an image, and grounding the phrases of its answer or of one's own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from PIL import Image

from flmm.adapters.features import Generated, PhraseFeatures
from flmm.adapters.frozen import FrozenLMM
from flmm.adapters.tokenizer import plain_decoder, prompt_ids
from flmm.grounded import GroundedLMM, Grounding
from flmm.refiners.embedding import ImageEmbedding
from flmm.text.phrases import Chunker, noun_chunks, phrase_spans, spans_to_ground
from flmm.text.tokens import phrase_token_spans

LONGEST_ANSWER = 512


class NoPhrases(ValueError):
    """An answer without a phrase to ground: it is empty, or has no noun chunk."""


@dataclass(frozen=True)
class Answer:
    """What an LMM said.

    text: of all tokens that have features (the last token said is never read; usually it ends the
    turn). offsets: characters (start, end) of each of them. generated: ids, attention and hidden
    states.
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


def ask(
    lmm: FrozenLMM, image: Image.Image, question: str, *, max_new_tokens: int | None = None
) -> Answer:
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
    text, offsets = text_and_offsets(
        generated.ids[: len(generated.maps)].tolist(), plain_decoder(lmm.tokenizer)
    )
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
    spans = (
        spans_to_ground(answer.text, chunker)
        if phrases is None
        else phrase_spans(answer.text, phrases)
    )
    if not spans:
        raise NoPhrases(
            "the answer has no phrase to ground: ask another question, or pass phrases to "
            "ground_phrases"
        )
    tokens = phrase_token_spans(answer.offsets, spans, straddling="drop")
    features = answer.generated.phrases(tokens, merge=model.merge)
    (masks,) = model.ground([features], [image])
    return GroundedText(
        answer.text, tuple(answer.text[a:b] for a, b in spans), tuple(spans), masks, features
    )


def text_and_offsets(
    ids: Sequence[int], decode: Callable[[Sequence[int]], str]
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The text of token ids, and the characters (start, end) that each token adds to it.

    By decoding ever longer beginnings: tokenizing the text again may give other tokens than the
    model said. Tokens that are only bytes of a character all get that character.
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
