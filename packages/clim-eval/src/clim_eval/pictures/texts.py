"""Texts of users in figures: drawn literally, in fonts that have their letters."""

import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

DEFAULT_FONT = "DejaVu Sans"  # ships with matplotlib


def text_options(*texts: str) -> dict[str, Any]:
    """Return the options with which matplotlib draws texts literally.

    A "$" does not begin a formula. Letters that matplotlib's own font lacks come from a font of the
    system that has them.
    """
    return {"parse_math": False, "fontfamily": font_families(texts)}


def readable_on(colour: str) -> str:
    """Return black or white, whichever is easier to read on a colour (contrast after WCAG 2).

    Args:
        colour: such as "#0072B2".
    """
    luminance = 0.0
    for place, weight in ((1, 0.2126), (3, 0.7152), (5, 0.0722)):
        level = int(colour[place : place + 2], 16) / 255
        luminance += weight * (
            level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4
        )
    return "white" if 1.05 / (luminance + 0.05) >= (luminance + 0.05) / 0.05 else "black"


def can_draw(text: str) -> bool:
    """Tell whether a font of this system has all letters of a text, and they are set correctly.

    Scripts from right to left, and those whose letters join or change places, need matplotlib 3.11
    or newer.
    """
    letters = [letter for letter in text if not letter.isspace()]
    if any(_needs_shaping(letter) for letter in letters) and not _has_shaping():
        return False
    return all(letter.isprintable() and _font_of(letter) is not None for letter in letters)


def font_families(texts: Iterable[str]) -> list[str]:
    """List the fonts that have the letters of texts, matplotlib's own first."""
    found = [_font_of(letter) for text in texts for letter in sorted(set(text))]
    return list(dict.fromkeys([DEFAULT_FONT, *(name for name in found if name is not None)]))


@lru_cache(maxsize=4096)
def _font_of(letter: str) -> str | None:
    """Find a font that has a letter; None where there is none."""
    if ord(letter) in _letters_of_default():
        return DEFAULT_FONT
    if letter.isspace():
        return None
    for name, letters in _letters_of_system().items():
        if ord(letter) in letters:
            return name
    return None


@lru_cache(maxsize=1)
def _letters_of_default() -> frozenset[int]:
    from matplotlib import font_manager

    return _letters_in(font_manager.findfont(DEFAULT_FONT))


@lru_cache(maxsize=1)
def _letters_of_system() -> dict[str, frozenset[int]]:
    """Return the letters of each upright font; read only where the default font lacks one."""
    from matplotlib import font_manager

    fonts: dict[str, frozenset[int]] = {}
    for entry in font_manager.fontManager.ttflist:
        # Fonts of coloured pictures cannot be drawn, and Last Resort has boxes for all letters.
        if entry.style != "normal" or any(word in entry.name for word in ("Emoji", "Resort")):
            continue
        if entry.name not in fonts:
            fonts[entry.name] = _letters_in(entry.fname)
    return fonts


def _letters_in(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # a font that was removed, or a damaged one
        return frozenset()


def _needs_shaping(letter: str) -> bool:
    if unicodedata.bidirectional(letter) in ("R", "AL"):
        return True
    # Indic scripts up to Sinhala, Myanmar, Khmer.
    return any(
        a <= ord(letter) <= b for a, b in ((0x900, 0xDFF), (0x1000, 0x109F), (0x1780, 0x17FF))
    )


def _has_shaping() -> bool:
    """Tell whether matplotlib sets scripts by libraqm, as 3.11 and newer do."""
    from matplotlib import ft2font

    return hasattr(ft2font, "__libraqm_version__")
