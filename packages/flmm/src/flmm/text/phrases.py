"""Phrases of an answer: noun chunks, those worth grounding, and their places in the text.

A place is a span (start, end) of characters, end exclusive.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

from flmm.text.negation import NEGATIONS, absent_spans, word_set

Chunker = Callable[[str], list[str]]
"""A function of a text: its noun chunks, word for word and in the order of the text."""

Span = tuple[int, int]
SPACY_MODEL = "en_core_web_sm"


# Chunks that consist of one of these words name no thing with a mask.
EMPTY_WORDS = word_set("""
    i you he she it we they me him her us them this that these those who whom which what there here
    one ones someone something anyone anything everyone everything nothing nobody each other another
    others himself herself itself themselves myself yourself mine yours his hers ours theirs
""")
# Chunks about these are about the whole picture.
_PICTURE_WORDS = word_set("image picture photo photograph")
_PLURAL = word_set(
    "the these those some several many two three four five six seven eight nine ten both"
)
_DETERMINERS = _PLURAL | word_set(
    "a an this that his her its their my your our another each every no"
)
# A chunk ends before any of these.
_ENDS = word_set("""
    is are was were be been being has have had do does did can could will would may might must
    should and or but nor of in on at by with from to into onto over under above below behind beside
    besides between among around near next along across through against inside outside toward
    towards for as than then that which who whose while where when there not also very wearing
    holding no without neither
""")
# Verbs that often follow a noun. An ending alone does not show a verb: "bus", "bed" and "ceiling"
# have the same endings.
_VERBS = word_set("""
    sits stands lies looks runs walks shows holds wears eats plays rides flies hangs rests leans
    jumps sleeps drives watches faces has contains seems appears swims grazes barks stares gazes
    stretches throws catches kicks swings moves turns points reaches climbs pulls pushes crosses
    drinks smiles waits floats grows chases follows covers surrounds carries uses includes features
    depicts consists serves
    sitting standing lying looking running walking showing eating playing riding flying hanging
    resting leaning jumping sleeping driving watching facing carrying using pulling pushing
    swimming grazing talking waiting smiling reading cooking crossing surfing skiing
    dressed parked seated placed covered surrounded filled attached located made painted decorated
    stacked used called named shown topped displayed
""")
# Characters that people type for one another.
_SAME = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "‑": "-"})
# The borders of clauses: punctuation, but no apostrophe or hyphen, no point of a number or an
# abbreviation ("5.5", "U.S."), and no mark that belongs to the letter before it.
_CLAUSES = re.compile(r"(?<!\b[A-Za-z])\.(?!\d)|[^\w\s'’.\-\u0300-\u036f\u0900-\u0dff]+")


def noun_chunks(text: str) -> list[str]:
    """Find the noun chunks of an English text, in order.

    spaCy finds them if it and its model are installed, otherwise simple rules.
    """
    return (_spacy_chunks if has_spacy() else simple_chunks)(text)


@cache
def has_spacy() -> bool:
    """Tell whether spaCy and its small English model can be imported."""
    return find_spec("spacy") is not None and find_spec(SPACY_MODEL) is not None


def simple_chunks(text: str) -> list[str]:
    """Find noun chunks that begin with a determiner, without a language model.

    Such as "a big dog", "the man", "two red cars". Chunks are as they stand in the text, spaces and
    line ends included. Bare plurals and names are missed, and an unusual verb may be taken for a
    noun; install spaCy for more.
    """
    found = []
    for clause in _CLAUSES.split(text):
        places = [match.span() for match in re.finditer(r"\S+", clause)]
        words = [clause[a:b].lower() for a, b in places]
        start = 0
        while start < len(words):
            end = _chunk_end(words, start) if words[start] in _DETERMINERS else start
            if end > start + 1:
                found.append(clause[places[start][0] : places[end - 1][1]])
            start = max(end, start + 1)
    return found


def _chunk_end(words: Sequence[str], start: int) -> int:
    """Return the index after the last word of the chunk whose determiner is at `start`."""
    end = start + 1
    while end < len(words):
        word = words[end]
        if word in _ENDS or word in _DETERMINERS or word in EMPTY_WORDS:
            break

        has_noun = end > start + 1
        following = words[end + 1] if end + 1 < len(words) else ""
        if has_noun and word in ("left", "right") and following == "of":  # "a dog left of a tree"
            break
        if has_noun and word in _VERBS:  # "a man holding a", "a cat sits on", "the photo shows"
            break
        end += 1
    return end


def _spacy_chunks(text: str) -> list[str]:
    return [chunk.text for chunk in _spacy_model()(text).noun_chunks]


@cache
def _spacy_model() -> Any:
    import spacy  # an extra: flmm[chat]

    return spacy.load(SPACY_MODEL)


def groundable(chunks: Iterable[str]) -> list[str]:
    """Choose the chunks worth a mask, in order and with repetitions.

    Pronouns and similar words are skipped, and so are chunks about the whole picture and chunks
    that deny a thing ("no dog").
    """
    return [chunk for chunk in chunks if _has_mask(chunk)]


def _has_mask(chunk: str) -> bool:
    words = _folded(chunk).split()
    if not words or " ".join(words) in EMPTY_WORDS or words[0] in NEGATIONS:
        return False
    # "the picture" is the one that is asked about; "a picture" may hang on a wall in it.
    of_whole = len(words) == 1 or words[0] in ("the", "this")
    return "image" not in words and not (of_whole and words[-1] in _PICTURE_WORDS)


def check_phrases(phrases: str | Iterable[str]) -> list[str]:
    """Check user phrases: one text, or any iterable of texts.

    Returns:
        The phrases as a list.

    Raises:
        ValueError: there is none, or one is not a text, is empty, or has bytes that are not text.
    """
    if isinstance(phrases, str):
        return check_phrases([phrases])

    found = list(phrases)
    if not found:
        raise ValueError("there is nothing to ground: pass at least one phrase")
    for number, phrase in enumerate(found, start=1):
        if not isinstance(phrase, str):
            raise ValueError(
                f"phrase {number} of {len(found)} is {phrase!r}: pass texts, such as 'a red car'"
            )
        if not phrase.strip():
            raise ValueError(f"phrase {number} of {len(found)} is empty: skip it")
        if any("\ud800" <= letter <= "\udfff" for letter in phrase):
            raise ValueError(f"phrase {number} of {len(found)} holds bytes that are no text")
    return [str(phrase) for phrase in found]


def phrase_spans(text: str, phrases: str | Iterable[str | Span]) -> list[Span]:
    """Find phrases in a text, in the order in which they are asked for.

    A phrase is a span of the text, or words. Words stand for every place where they occur as whole
    words; letter case, runs of spaces, and kinds of apostrophes, quotes and dashes do not matter.

    Raises:
        ValueError: a phrase is not in the text.
    """
    spans: list[Span] = []
    for wanted in [phrases] if isinstance(phrases, str) else phrases:
        if isinstance(wanted, str):
            spans += _mentions(text, *check_phrases(wanted))
            continue
        start, end = wanted
        if not 0 <= start < end <= len(text):
            raise ValueError(
                f"characters {start} to {end} are not in the answer of {len(text)} characters: "
                "pass a span (start, end) of its text"
            )
        spans.append((start, end))
    return spans


def spans_to_ground(text: str, chunker: Chunker = noun_chunks) -> list[Span]:
    """Find the spans of an answer's groundable chunks, every mention of its own.

    A chunk inside another one is skipped, and so is one whose thing the text denies. An answer
    without such a chunk ("Yes.", "There is no dog.") has nothing to ground.
    """
    places: list[Span] = []
    start = 0
    for chunk in chunker(text):
        place = _next_place(text, chunk, start)
        if place is not None:
            start = place[1]
            places.append(place)

    absent = absent_spans(text, places)
    spans = [span for span in sorted(set(places) - absent) if _has_mask(text[span[0] : span[1]])]
    return [span for span in spans if not _inside_another(span, spans)]


def _mentions(text: str, phrase: str) -> list[Span]:
    """Find every place of a phrase as whole words."""
    spans = [match.span() for match in _pattern(phrase).finditer(_folded(text))]
    if not spans:
        raise ValueError(
            f"the phrase {phrase!r} is not in the answer {text!r}: pass words as they stand there"
        )
    origins = _origins(text)
    return [(origins[start], origins[end]) for start, end in spans]


def _next_place(text: str, chunk: str, start: int) -> Span | None:
    """Find a chunk, word for word, at or after `start`, or else anywhere."""
    for first in (start, 0):
        pattern = re.compile(_bordered(chunk, re.escape(chunk)))
        if chunk.strip() and (match := pattern.search(text, first)):
            return match.span()
    return None


def _pattern(phrase: str) -> re.Pattern[str]:
    folded = _folded(phrase).strip()
    words = r"\s+".join(re.escape(word) for word in folded.split())
    return re.compile(_bordered(folded, words))


def _bordered(words: str, pattern: str) -> str:
    """Let a pattern match whole words only, where its script puts spaces between words."""
    before = r"(?<!\w)" if _has_borders(words[:1]) else ""
    after = r"(?![\w\u0300-\u036f])" if _has_borders(words[-1:]) else ""
    return f"{before}{pattern}{after}"


def _has_borders(letter: str) -> bool:
    """Tell whether a letter belongs to a script with spaces; Chinese, Japanese and Thai have none.

    Punctuation has no border: "(a cat" may stand after a letter.
    """
    if not re.match(r"\w", letter):
        return False
    return not re.match(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]", letter)


def _folded(text: str) -> str:
    """Fold letter case, composed letters, apostrophes, quotes and dashes."""
    return "".join(_folded_letter(letter) for letter in text)


def _folded_letter(letter: str) -> str:
    return unicodedata.normalize("NFD", letter.lower()).translate(_SAME)


def _origins(text: str) -> list[int]:
    """List, for each character of the folded text and its end, the character of the text."""
    origins: list[int] = []
    for place, letter in enumerate(text):
        origins += [place] * len(_folded_letter(letter))
    return [*origins, len(text)]


def _inside_another(span: Span, others: Iterable[Span]) -> bool:
    return any(span != (a, b) and a <= span[0] and span[1] <= b for a, b in others)
