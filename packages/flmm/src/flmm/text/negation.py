"""Phrases for things that an English text denies: "There is no dog", "a man without a hat"."""

import re
from collections.abc import Iterable

Span = tuple[int, int]


def word_set(text: str) -> frozenset[str]:
    """Make a set of the words of a text."""
    return frozenset(text.split())


NEGATIONS = word_set("no not never any neither nor none without cannot")
# Words between a negation and what it denies: "does not show a", "no sign of a".
_BETWEEN = word_set("""
    a an the any single of or nor be been is are was were do does did have has had having there
    see seeing sees seen find finding found show showing shows shown contain containing contains
    include including includes depict depicting depicts wear wearing wears hold holding holds
    carry carrying carries appear seem to visible sign signs trace evidence presence
""")
_JOINS = re.compile(r"\s*,?\s*(or|nor)\s+|\s*,\s*")
_CLAUSE_ENDS = re.compile(r"[.;:!?\n]|,(?!\s*(?:or|nor)\b)|\bbut\b", re.IGNORECASE)


def absent_spans(text: str, spans: Iterable[Span]) -> set[Span]:
    """Find the spans whose things the text denies.

    A phrase is absent where it begins with a negation, where a negation stands before it in the
    same clause with nothing but words of seeing, having and being between them, or where "or" or
    "nor" joins it to an absent one.

    Args:
        spans: characters (start, end) of phrases in the text.
    """
    absent: set[Span] = set()
    before: Span | None = None  # the last absent span
    for span in sorted(spans):
        joined = before is not None and _JOINS.fullmatch(text[before[1] : span[0]])
        if joined or _negates(text[span[0] : span[1]]) or _is_denied(text[: span[0]]):
            absent.add(span)
            before = span
    return absent


def _negates(phrase: str) -> bool:
    """Tell whether a phrase begins with a negation, such as "no dog"."""
    return bool(NEGATIONS.intersection(phrase.lower().split()[:1]))


def _is_denied(before: str) -> bool:
    """Tell whether the end of a text denies what follows."""
    clause = _CLAUSE_ENDS.split(before)[-1].lower().replace("’", "'")
    for word in reversed(re.findall(r"[\w']+", clause)):
        if word in NEGATIONS or word.endswith("n't"):
            return True
        if word not in _BETWEEN:
            return False
    return False
