"""Ask a frozen LMM about an image, and ground the phrases of its answer."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image

from flmm.adapters.features import Answer, PhraseFeatures
from flmm.adapters.frozen import FrozenLMM
from flmm.adapters.tokenizer import plain_decoder, prompt_ids, tokenizer_of
from flmm.dialogue.conversation import conversation_prompt, fitting_history
from flmm.dialogue.streaming import AnswerStream, OnText
from flmm.grounded import GroundedLMM, Grounding, ground_as_given
from flmm.pictures.files import read_image
from flmm.refiners.embedding import ImageEmbedding
from flmm.samples import prepare_image
from flmm.text.phrases import Chunker, Span, noun_chunks, phrase_spans, spans_to_ground

LONGEST_ANSWER = 512
# Tokens that stay free for an answer when earlier turns are dropped.
SHORT_ANSWER = 64


class NoPhrasesError(ValueError):
    """An answer without a phrase to ground: it is empty, names no thing ("Yes."), or says only what
    is absent ("There is no dog.")."""


@dataclass(frozen=True)
class GroundedText:
    """Phrases and their masks, in the same order.

    spans: characters (start, end) of each phrase in the text. features: from which the masks were
    made.
    """

    text: str
    phrases: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    masks: Grounding
    features: PhraseFeatures


def ask(
    lmm: FrozenLMM,
    image: Image.Image | str | Path,
    question: str,
    *,
    history: Sequence[tuple[str, str]] = (),
    max_new_tokens: int | None = None,
    on_text: OnText | None = None,
) -> Answer:
    """Answer a question about an image, greedily.

    Args:
        image: a picture in memory, or its file.
        history: earlier questions about the image and their answers, the oldest first. The oldest
            are dropped if the LMM's context has no room for all, see `Answer.remembered`.
        max_new_tokens: longest answer; None: 512, or the room in the LMM's context.
        on_text: takes the answer in pieces while it is written; see `AnswerStream`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image, the question is empty, the LMM has no tokenizer, or
            question and answer do not fit its context.
    """
    if not question.strip():
        raise ValueError("the question is empty: ask something, such as 'What is on the table?'")
    image = read_image(image)
    prepared = prepare_image(lmm.family, image)
    layout = lmm.family.layout(prepared)
    tokens = len(layout.ids(lmm.family.image_token_id, tokenizer_of(lmm)))
    kept = _fitting_turns(lmm, tokens, history, question, max_new_tokens=max_new_tokens)
    ids = prompt_ids(lmm, conversation_prompt(lmm, kept, question))
    if max_new_tokens is None:
        held = tokens + int((ids != lmm.family.image_token_id).sum())
        left = LONGEST_ANSWER if lmm.context is None else lmm.context - held
        max_new_tokens = min(LONGEST_ANSWER, max(left, 1))

    decode = plain_decoder(tokenizer_of(lmm))
    stream = None if on_text is None else AnswerStream(decode, on_text)
    generated = lmm.generate([prepared], ids, max_new_tokens=max_new_tokens, stop=stream)
    text, offsets = text_and_offsets(generated.ids[: len(generated.maps)].tolist(), decode)
    if stream is not None:
        stream.finish(text)
    return Answer(text, offsets, generated, len(kept))


@torch.no_grad()
def ground_answer(
    model: GroundedLMM,
    image: Image.Image | ImageEmbedding,
    answer: Answer,
    phrases: str | Iterable[str | Span] | None = None,
    *,
    chunker: Chunker = noun_chunks,
) -> GroundedText:
    """Ground phrases of an answer, without running the LMM again.

    Args:
        image: the picture, or SAM's embedding of it (`model.sam.embed`).
        phrases: in the order of the masks: words of the answer, each for all its mentions, or spans
            (start, end) of its characters. None grounds its noun chunks, found by `chunker`.

    Raises:
        NoPhrasesError: the answer has nothing to ground.
        ValueError: one of `phrases` is not in it.
    """
    spans = answer_spans(answer, phrases, chunker=chunker)
    features = answer.phrase_features(spans, merge=model.merge)
    masks = ground_as_given(model, features, image)
    texts = tuple(answer.text[start:end] for start, end in spans)
    return GroundedText(answer.text, texts, tuple(spans), masks, features)


def answer_spans(
    answer: Answer,
    phrases: str | Iterable[str | Span] | None = None,
    *,
    chunker: Chunker = noun_chunks,
) -> list[Span]:
    """Find the characters (start, end) of the phrases of an answer; arguments and errors are those
    of `ground_answer`."""
    if phrases is None:
        spans = spans_to_ground(answer.text, chunker)
    else:
        spans = phrase_spans(answer.text, phrases)
    if not spans:
        raise NoPhrasesError(
            "the answer has no phrase to ground, it names nothing that is there: ask another "
            "question, or pass phrases to ground_phrases"
        )
    return spans


def text_and_offsets(
    ids: Sequence[int], decode: Callable[[Sequence[int]], str]
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Decode token ids, and find the characters (start, end) that each token adds to the text.

    Ever longer beginnings are decoded, because tokenizing the text again may give other tokens than
    the model wrote. Tokens that are only bytes of a character all get that character.
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


def _fitting_turns(
    lmm: FrozenLMM,
    image_tokens: int,
    history: Sequence[tuple[str, str]],
    question: str,
    *,
    max_new_tokens: int | None,
) -> Sequence[tuple[str, str]]:
    """Return the latest turns that fit the context next to image, question and answer."""
    if lmm.context is None:
        return history
    room = max_new_tokens or min(SHORT_ANSWER, lmm.context // 4)
    most = lmm.context - room - image_tokens
    return fitting_history(lmm, history, question, most_tokens=most)


def _common_prefix(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
