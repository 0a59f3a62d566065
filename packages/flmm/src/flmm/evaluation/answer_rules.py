"""Answers against the true ones by rules of strings, for evaluations without a judge."""

import re
import unicodedata
from collections import Counter

RULES = ("exact", "contains", "F1")

_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}


def rule_scores(answer: str, truth: str) -> dict[str, float]:
    """Compare an answer with the true one.

    Case, punctuation, articles and the spelling of small numbers do not matter.

    Returns:
        "exact": 1 where all words are the same. "contains": 1 where the words of the truth stand
        together in the answer. "F1": harmonic mean of precision and recall of the words, as for
        SQuAD (arXiv 1606.05250).
    """
    found, true = answer_words(answer), answer_words(truth)
    if not true:
        same = float(not found)
        return {"exact": same, "contains": same, "F1": same}

    starts = range(len(found) - len(true) + 1)
    contains = any(found[start : start + len(true)] == true for start in starts)
    shared = sum((Counter(found) & Counter(true)).values())
    return {
        "exact": float(found == true),
        "contains": float(contains),
        "F1": 2 * shared / (len(found) + len(true)),
    }


def answer_words(text: str) -> list[str]:
    """List the words that are compared."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = re.findall(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*", folded)
    kept = [word for word in words if word not in _ARTICLES]
    return [_NUMBERS.get(word, word) for word in kept or words]
