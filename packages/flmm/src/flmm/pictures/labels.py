"""Labels of masks in a picture: short, numbered where colours repeat, and apart from each other.

Letters: N labels.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from clim_eval.pictures import can_draw

LETTERS = 24  # in a line
LINES = 2
TITLE_LINES = 3
# Steps in which a label looks for a free place, in its own heights.
_RINGS = 6


@dataclass(frozen=True)
class Label:
    """A label. text: lines. number: replaces the text where there is no room for it."""

    text: str
    number: str


def mask_labels(phrases: Sequence[str], *, colours: int) -> list[Label]:
    """Make the labels of phrases.

    They have numbers where phrases share a colour or a text, or where no font has the letters of
    one; a phrase whose letters cannot be drawn has a number alone.

    Args:
        colours: how many different ones there are.
    """
    drawable = [can_draw(phrase) for phrase in phrases]
    numbered = len(phrases) > colours or len(set(phrases)) < len(phrases) or not all(drawable)
    labels = []
    for number, (phrase, is_drawable) in enumerate(zip(phrases, drawable, strict=True), start=1):
        text = phrase if is_drawable else ""
        if numbered:
            text = f"{number} {text}".strip()
        labels.append(Label(fit_lines(text, LETTERS, LINES), str(number)))
    return labels


def fit_lines(text: str, letters: int, lines: int) -> str:
    """Break a text into lines, and end it with "…" where it has more."""
    return "\n".join(wrap(text, letters, max_lines=lines, placeholder=" …"))


def title_lines(text: str, letters: int) -> str:
    """Return a title of a few lines at most, with "…" for words whose letters cannot be drawn."""
    words = [word if can_draw(word) else "…" for word in text.split()]
    is_empty = all(word == "…" for word in words)
    return "" if is_empty else fit_lines(" ".join(words), letters, TITLE_LINES)


def list_of_labels(phrases: Sequence[str], numbers: Sequence[int], letters: int) -> str:
    """List the phrases of numbers (from 0) that stand alone in the picture, in two lines."""
    named = [f"{number + 1} {phrases[number]}" for number in numbers if can_draw(phrases[number])]
    return fit_lines(", ".join(named), letters, 2)


def label_size(text: str, letter_px: float) -> tuple[float, float]:
    """Estimate (width, height) of a label, with its frame.

    Args:
        letter_px: size of the font in pixels of the picture.
    """
    lines = text.split("\n")
    width = max(map(_width, lines))
    return (width + 1) * letter_px, (1.3 * len(lines) + 0.5) * letter_px


def place_labels(
    centres: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    *,
    picture: tuple[float, float],
) -> list[tuple[float, float] | None]:
    """Find places where labels lie inside the picture and on no other label.

    Args:
        centres: N wanted places (x, y) of their centres.
        sizes: N (width, height).
        picture: (width, height).

    Returns:
        N places, the nearest free ones; None where there is no room near the wanted place.
    """
    taken: list[tuple[float, float, float, float]] = []
    places: list[tuple[float, float] | None] = []
    for centre, size in zip(centres, sizes, strict=True):
        place = _free_place(centre, size, taken, picture)
        places.append(place)
        if place is not None:
            taken.append((*place, *size))
    return places


def _free_place(
    centre: tuple[float, float],
    size: tuple[float, float],
    taken: Sequence[tuple[float, float, float, float]],
    picture: tuple[float, float],
) -> tuple[float, float] | None:
    width, height = size
    for ring in range(_RINGS + 1):
        for right, down in _ring(ring):
            x = _inside(centre[0] + right * width / 2, width, picture[0])
            y = _inside(centre[1] + down * height, height, picture[1])
            if not any(
                abs(x - a) < (width + w) / 2 and abs(y - b) < (height + h) / 2
                for a, b, w, h in taken
            ):
                return x, y
    return None


def _ring(ring: int) -> list[tuple[int, int]]:
    """List the steps (right, down) of a ring around the centre, those up and down first."""
    if ring == 0:
        return [(0, 0)]
    steps = range(-ring, ring + 1)
    found = [(x, y) for x in steps for y in steps if max(abs(x), abs(y)) == ring]
    return sorted(found, key=lambda step: (abs(step[0]), -step[1]))


def _inside(value: float, extent: float, limit: float) -> float:
    """Move a centre so that the label lies inside; one that is too long stays in the middle."""
    if extent >= limit:
        return limit / 2
    return min(max(value, extent / 2), limit - extent / 2)


def _width(line: str) -> float:
    """Estimate the width of a line in font sizes."""
    width = 0.0
    for letter in line:
        if not unicodedata.combining(letter):
            width += 1.0 if unicodedata.east_asian_width(letter) in "WF" else 0.6
    return width
