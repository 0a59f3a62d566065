"""Find the nouns of a list in a caption, with plurals and compounds, without a language model.

Rules, in the order they apply:

1. Words are runs of letters and digits, in lower case; a possessive 's does not count. Hyphens,
   underscores and slashes separate words, so "hot-dog", "hot_dog" and "hot dog" are the same two
   words.
2. A noun occurs where its words follow each other. The last one may differ in number: each word
   stands for itself and for every singular it may be the plural of by English spelling ("glasses":
   "glass", "glasse"; "women": "woman").
3. A noun in the caption's own spelling goes before one that differs in number.
4. From left to right the longest noun takes its words: where "hot dog" is found, "dog" is not.
"""

import re
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+")
_POSSESSIVE = re.compile(r"['’]s\b")
_IRREGULAR = {
    "people": "person",
    "children": "child",
    "mice": "mouse",
    "geese": "goose",
    "feet": "foot",
    "teeth": "tooth",
    "oxen": "ox",
    "dice": "die",
}


def words_of(text: str) -> list[str]:
    """Return the words of a text by rule 1."""
    return _WORD.findall(_POSSESSIVE.sub("", text.lower()))


def base_forms(word: str) -> list[str]:
    """Return the word and every singular that it may be the plural of, itself first."""
    forms = [word]
    if word in _IRREGULAR:
        forms.append(_IRREGULAR[word])
    if word.endswith("men"):
        forms.append(word[:-3] + "man")
    if word.endswith("ies") and len(word) > 4:
        forms.append(word[:-3] + "y")
    if word.endswith("ves") and len(word) > 4:
        forms += [word[:-3] + "f", word[:-3] + "fe"]
    if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")) and len(word) > 4:
        forms.append(word[:-2])
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        forms.append(word[:-1])
    return forms


class NounFinder:
    """Finds the nouns of a list in captions.

    Args:
        nouns: names. Two that are the same words (rule 1) stand for both.
        owners: number of the class that each noun stands for; None numbers the nouns themselves.

    Raises ValueError for a noun without a letter or digit.
    """

    def __init__(self, nouns: Sequence[str], owners: Sequence[int] | None = None):
        self._exact: dict[tuple[str, ...], list[int]] = {}
        self._by_form: dict[tuple[str, ...], list[int]] = {}
        for index, noun in zip(owners or range(len(nouns)), nouns, strict=True):
            words = words_of(noun)
            if not words:
                raise ValueError(f"noun {noun!r} has no letters: leave it out of the list")
            self._exact.setdefault(tuple(words), []).append(index)
            for form in base_forms(words[-1]):
                self._by_form.setdefault((*words[:-1], form), []).append(index)
        self._longest = max((len(key) for key in self._exact), default=0)

    def find(self, captions: Sequence[str]) -> list[int]:
        """Return the numbers of the nouns that occur in any of the captions, ascending."""
        found: set[int] = set()
        for caption in captions:
            words = words_of(caption)
            place = 0
            while place < len(words):
                length, nouns = self._at(words, place)
                found.update(nouns)
                place += max(1, length)
        return sorted(found)

    def _at(self, words: list[str], place: int) -> tuple[int, list[int]]:
        """(number of words, nouns) of the longest noun that begins at a place; (0, []) without
        one."""
        for length in range(min(self._longest, len(words) - place), 0, -1):
            *first, last = words[place : place + length]
            exact = self._exact.get((*first, last))
            if exact:
                return length, exact
            inflected = {
                noun for form in base_forms(last) for noun in self._by_form.get((*first, form), ())
            }
            if inflected:
                return length, sorted(inflected)
        return 0, []
