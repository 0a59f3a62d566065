"""Which words of an answer name things: noun chunks, those worth grounding, and where they stand in
the text."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.util import find_spec

Chunker = Callable[[str], list[str]]
SPACY_MODEL = "en_core_web_sm"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Chunks that are one of these name nothing that has a mask of its own.
_EMPTY_WORDS = _words(
    "i you he she it we they me him her us them this that these those who whom which what there "
    "here one ones "
    "someone something anyone anything everyone everything nothing nobody each other another "
    "others himself herself "
    "itself themselves myself yourself mine yours his hers ours theirs"
)
_PLURAL = _words(
    "the these those some several many two three four five six seven eight nine ten both"
)
_DETERMINERS = _PLURAL | _words("a an this that his her its their my your our another each every")
# A chunk ends before any of these.
_ENDS = _words(
    "is are was were be been being has have had do does did can could will would may might must "
    "should and or but nor "
    "of in on at by with from to into onto over under above below behind beside besides between "
    "among around near next "
    "along across through against inside outside toward towards for as than then that which who "
    "whose while where when "
    "there not also very wearing holding"
)


def noun_chunks(text: str) -> list[str]:
    """Noun chunks of an English text in order, by spaCy where it and its model are installed, else
    by simple rules."""
    return (_spacy_chunks if has_spacy() else simple_chunks)(text)


@cache
def has_spacy() -> bool:
    """spaCy and its small English model can be imported."""
    return find_spec("spacy") is not None and find_spec(SPACY_MODEL) is not None


def simple_chunks(text: str) -> list[str]:
    """Noun chunks that begin with a determiner, without a language model: "a big dog", "the man",
    "two red cars".

    Chunks are as they stand in the text, spaces and line ends included. Bare plurals and names are
    missed, and an unusual verb may be taken for a noun; install spaCy for more.
    """
    found = []
    for clause in re.split(r"[^\w\s'-]+", text):
        places = [match.span() for match in re.finditer(r"\S+", clause)]
        words = [clause[a:b] for a, b in places]
        start = 0
        while start < len(words):
            if words[start].lower() in _DETERMINERS:
                end = _chunk_end(words, start)
                if end > start + 1:
                    found.append(clause[places[start][0] : places[end - 1][1]])
                start = max(end, start + 1)
            else:
                start += 1
    return found


def _chunk_end(words: Sequence[str], start: int) -> int:
    """Index after the last word of the chunk whose determiner is at `start`."""
    singular = words[start].lower() not in _PLURAL
    end = start + 1
    while end < len(words):
        word = words[end].lower()
        if word in _ENDS or word in _DETERMINERS or word in _EMPTY_WORDS:
            break
        following = words[end + 1].lower() if end + 1 < len(words) else ""
        if (
            end > start + 1 and word in ("left", "right") and following == "of"
        ):  # "a dog left of a tree"
            break
        linked = following in _ENDS or following in _DETERMINERS
        verbal = word.endswith(("ing", "ed")) or (
            singular and re.search(r"[^s]s$", word) is not None
        )
        if end > start + 1 and linked and verbal:  # "a man holding a", "a cat sits on"
            break
        end += 1
    return end


def _spacy_chunks(text: str) -> list[str]:
    return [chunk.text for chunk in _spacy_model()(text).noun_chunks]


@cache
def _spacy_model():
    import spacy  # an extra: flmm[chat]

    return spacy.load(SPACY_MODEL)


def groundable(chunks: Iterable[str]) -> list[str]:
    """The distinct chunks worth a mask, in order.

    Left out: pronouns and the like, chunks that speak of the image itself, and parts of other
    chunks.
    """
    kept = [
        chunk
        for chunk in dict.fromkeys(chunks)
        if "image" not in chunk.lower()
        and chunk.strip().lower() not in _EMPTY_WORDS
        and chunk.strip()
    ]
    return [chunk for chunk in kept if not any(chunk != other and chunk in other for other in kept)]


def phrase_spans(text: str, phrases: Iterable[str]) -> list[tuple[int, int]]:
    """Characters (start, end exclusive) of the first occurrence of each phrase, in the order of the
    text.

    Of two that overlap the earlier one stays.

    Raises:
        ValueError: a phrase is not in the text.
    """
    spans = []
    for phrase in phrases:
        match = re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text)
        start = match.start() if match else text.find(phrase)
        if start < 0 or not phrase:
            raise ValueError(
                f"the phrase {phrase!r} is not in the answer {text!r}: pass words as they stand "
                "there"
            )
        spans.append((start, start + len(phrase)))
    apart: list[tuple[int, int]] = []
    for span in sorted(spans):
        if not apart or span[0] >= apart[-1][1]:
            apart.append(span)
    return apart


def spans_to_ground(text: str, chunker: Chunker = noun_chunks) -> list[tuple[int, int]]:
    """Spans of an answer's groundable chunks; the whole text where there are none."""
    stripped = text.rstrip()
    return phrase_spans(text, groundable(chunker(text))) or (
        [(0, len(stripped))] if stripped else []
    )
