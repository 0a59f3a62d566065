"""The phrases that F-LMM's own demo grounds, to compare with its results (arXiv 2406.05821).

The default is `flmm.text.phrases.spans_to_ground`, which differs on purpose: it grounds every
mention, compares words and not letters, and grounds nothing in an answer without a noun chunk.
"""

import re
from collections.abc import Iterable

from flmm.text.phrases import EMPTY_WORDS, Chunker, Span, noun_chunks


def original_chunks(chunks: Iterable[str]) -> list[str]:
    """Choose the distinct chunks that the original grounds, in order.

    It skips pronouns, every chunk with the letters "image", and chunks whose letters are part of
    another chunk.
    """
    named = []
    for chunk in dict.fromkeys(chunks):
        words = chunk.strip().lower()
        if words and words not in EMPTY_WORDS and "image" not in words:
            named.append(chunk)
    return [chunk for chunk in named if not _is_part(chunk, named)]


def _is_part(chunk: str, others: Iterable[str]) -> bool:
    return any(chunk in other for other in others if other != chunk)


def original_spans(text: str, chunker: Chunker = noun_chunks) -> list[Span]:
    """Find the spans of an answer that the original grounds, in the order of the text.

    It takes the first mention of each chunk, and the earlier one of two that overlap. An answer
    without a chunk ("Yes.") is one span. Pass the spans to `ground_answer` as its `phrases`.

    Raises:
        ValueError: a chunk is not in the text.
    """
    mentions = [_first_mention(text, chunk) for chunk in original_chunks(chunker(text))]

    spans: list[Span] = []
    for start, end in sorted(mentions):
        if not spans or start >= spans[-1][1]:
            spans.append((start, end))

    if not spans and text.strip():
        return [(0, len(text.rstrip()))]
    return spans


def _first_mention(text: str, chunk: str) -> Span:
    """Find the first place of a chunk, preferably as whole words."""
    match = re.search(rf"(?<!\w){re.escape(chunk)}(?!\w)", text)
    start = match.start() if match else text.find(chunk)
    if start < 0:
        raise ValueError(
            f"the chunk {chunk!r} is not in the answer {text!r}: "
            "let the chunker return words as they stand there"
        )
    return start, start + len(chunk)
