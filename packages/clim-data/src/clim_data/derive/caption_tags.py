"""Tags of images from their captions: the classes whose name or synonym occurs in a caption."""

import re
from collections.abc import Sequence
from typing import Literal, get_args

TagRule = Literal["words", "original"]

# Plurals that no rule makes.
IRREGULAR = {
    "children": "child",
    "feet": "foot",
    "geese": "goose",
    "men": "man",
    "mice": "mouse",
    "people": "person",
    "teeth": "tooth",
    "women": "woman",
}


class CaptionTagger:
    """Finds classes in captions.

    The rule "words" compares words: punctuation, capitals, hyphens and plurals make no difference,
    and of two names at the same place the longer one counts ("hot dog" is no dog). The rule
    "original" is the one of Detic's tool, which compares letters: a name needs a blank on both
    sides, or the start or end of the caption on one side.

    Args:
        names: for each class its names and synonyms, as in LVIS: "_" is a blank, and the text after
            "(" does not count.
        rule: see above. Published OV-COCO and OV-LVIS figures used "original".

    Raises:
        ValueError: an unknown rule, or a class without name.
    """

    def __init__(self, names: Sequence[Sequence[str]], rule: TagRule = "words"):
        if rule not in get_args(TagRule):
            raise ValueError(f"rule={rule!r}; legal values are {', '.join(get_args(TagRule))}")
        self.rule = rule
        self._names: list[list[str]] = []
        self._classes: dict[tuple[str, ...], set[int]] = {}
        for number, synonyms in enumerate(names):
            plain = [_plain(name) for name in synonyms]
            keys = {_words(name) for name in plain} - {()}
            if not keys:
                raise ValueError(f"class {number} has no name; give every class at least one")
            self._names.append(plain)
            for key in keys:
                self._classes.setdefault(key, set()).add(number)
        self._longest = max(map(len, self._classes))

    def tags(self, captions: Sequence[str]) -> list[int]:
        """Find the classes of an image.

        Args:
            captions: all captions of the image.

        Returns:
            Numbers of the classes, rising.
        """
        if self.rule == "original":
            return self._letters(" ".join(captions).lower())
        found: set[int] = set()
        for caption in captions:
            found |= self._in_words(_words(caption.lower()))
        return sorted(found)

    def _letters(self, text: str) -> list[int]:
        found = []
        for number, names in enumerate(self._names):
            for name in names:
                inside = f" {name} " in text
                if inside or text.startswith(f"{name} ") or text.endswith(f" {name}"):
                    found.append(number)
                    break
        return found

    def _in_words(self, words: tuple[str, ...]) -> set[int]:
        found: set[int] = set()
        start = 0
        while start < len(words):
            length, classes = self._longest_at(words, start)
            found |= classes
            start += max(length, 1)
        return found

    def _longest_at(self, words: tuple[str, ...], start: int) -> tuple[int, set[int]]:
        for length in range(min(self._longest, len(words) - start), 0, -1):
            *first, last = words[start : start + length]
            for form in _singulars(last):
                classes = self._classes.get((*first, form))
                if classes:
                    return length, classes
        return 0, set()


def has_words(name: str) -> bool:
    """Return whether a name of a class has a word that a caption can hold."""
    return bool(_words(_plain(name)))


def _plain(name: str) -> str:
    return name.replace("_", " ").split("(")[0].lower().strip()


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.replace("_", " ")))


def _singulars(word: str) -> list[str]:
    """List the possible singulars of a word, itself first."""
    forms = [word]
    if word in IRREGULAR:
        forms.append(IRREGULAR[word])
    if word.endswith("s") and not word.endswith("ss"):
        forms.append(word[:-1])
    if word.endswith("es"):
        forms.append(word[:-2])
    if word.endswith("ies"):
        forms.append(word[:-3] + "y")
    if word.endswith("ves"):
        forms += [word[:-3] + "f", word[:-3] + "fe"]
    return forms
