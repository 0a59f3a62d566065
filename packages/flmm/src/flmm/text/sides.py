"""The side of the picture that an English phrase names: "a dog on the left", "top right window"."""

import re

Side = tuple[int, int]
"""Across and down: -1 is left or top, 1 is right or bottom, 0 is neither."""

_SIDES: dict[str, Side] = {
    **dict.fromkeys(("left", "leftmost"), (-1, 0)),
    **dict.fromkeys(("right", "rightmost"), (1, 0)),
    **dict.fromkeys(("top", "topmost", "upper", "uppermost"), (0, -1)),
    **dict.fromkeys(("bottom", "lower", "lowermost", "bottommost"), (0, 1)),
}
_PICTURE = r"(?:the|this) (?:picture|image|photo|photograph|scene|frame)\b"
# From here on a phrase tells where its thing is next to another one: "the dog left of a tree".
_NEXT_TO_ANOTHER = re.compile(
    rf"\b(?:left|right|top|bottom)(?: side| edge| half| corner)? of (?!{_PICTURE})|\bon top\b"
)
# Words that look like a side and are none: "her left hand", "right behind", "in a red top".
_NO_SIDE = re.compile(
    r"\b(?:left|right) (?:next|behind|beside|in front|above|below|under|foot|arm|leg|eye|ear|hand"
    r"(?! side))\b|\b(?:in|with|wearing) (?!the\b|this\b)(?:\w+ ){0,2}top\b"
)


def side_of(phrase: str) -> Side:
    """Find the side of the picture that a phrase names.

    It is (0, 0) for a phrase that names none, and 0 on an axis on which it names both ends. Sides
    of other things ("the dog left of a tree") are none of the picture.
    """
    words = " ".join(re.findall(r"\w+", phrase.lower()))
    of_picture = _NEXT_TO_ANOTHER.split(words, maxsplit=1)[0]
    found = {_SIDES[word] for word in _NO_SIDE.sub("", of_picture).split() if word in _SIDES}
    return sum(across for across, _ in found), sum(down for _, down in found)
