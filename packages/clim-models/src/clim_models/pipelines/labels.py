"""Names in drawings: in a font that has their letters, and always inside the picture."""

import importlib.util
import unicodedata
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = tuple[int, int, int]

# Least height of letters in pixels, also where less would fit.
SMALLEST_FONT_PX = 11
MARGIN_PX = 3
MORE = "…"
# Scripts whose letters join or change places: Indic up to Sinhala, Myanmar, Khmer.
JOINED = ((0x900, 0xDFF), (0x1000, 0x109F), (0x1780, 0x17FF))
NO_LETTER = "\U0010ffff"


def write_label(
    image: Image.Image,
    box: tuple[float, float, float, float],
    name: str,
    score: str,
    *,
    ground: Colour,
) -> None:
    """Write a name and its score in white above a box, or inside where the picture ends; in place.

    Args:
        image: RGB.
        box: x0, y0, x1, y1 in pixels of the image.
        name: shortened where the picture is too narrow.
        ground: colour of the label.
    """
    width, height = image.size
    font = label_font(max(SMALLEST_FONT_PX, round(max(width, height) / 48)))
    room = width - 2 * MARGIN_PX
    if font.getlength(f"{name} {score}") > room:
        font = label_font(SMALLEST_FONT_PX)
    text = fitted_text(name, score, font, room)

    left, top, right, bottom = font.getbbox(text)
    wide, high = right - left + 2 * MARGIN_PX, bottom - top + 4
    x = max(0, min(box[0], width - wide))
    y = box[1] - high if box[1] >= high else box[1]
    y = max(0, min(y, height - high))

    draw = ImageDraw.Draw(image)
    draw.rectangle((x, y, x + wide, y + high), fill=ground)
    draw.text((x + MARGIN_PX - left, y + 2 - top), text, fill="white", font=font)


def fitted_text(name: str, score: str, font: Font, room: float) -> str:
    """Return "NAME SCORE", the name shortened to a width of `room` pixels in all.

    Where not even one letter has room, the score goes as well.
    """
    text = f"{name} {score}"
    for letters in range(len(name) - 1, 0, -1):
        if font.getlength(text) <= room:
            return text
        text = f"{name[:letters].rstrip()}{MORE} {score}"
    return text if font.getlength(text) <= room else name[:1] + MORE


def readable_label(label: str, number: int) -> str:
    """Return a label that a font at hand can write, or "#" and the number of its class."""
    return label if all(map(_has_letter, label)) else f"#{number}"


@lru_cache(maxsize=32)
def label_font(size: int) -> Font:
    """Return the font of drawings: matplotlib's, which has more letters, or else Pillow's own."""
    path = _font_file()
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)


@lru_cache(maxsize=1)
def _font_file() -> str | None:
    """Find the font that comes with matplotlib, without importing it."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return str(path) if path.is_file() else None


@lru_cache(maxsize=4096)
def _has_letter(letter: str) -> bool:
    if letter.isspace():
        return True
    if not letter.isprintable() or (_is_joined(letter) and not features.check("raqm")):
        return False
    font = label_font(SMALLEST_FONT_PX)
    return bytes(font.getmask(letter)) != bytes(font.getmask(NO_LETTER))


def _is_joined(letter: str) -> bool:
    """Tell whether a letter needs a layout engine: from right to left, or joined with others."""
    if unicodedata.bidirectional(letter) in ("R", "AL"):
        return True
    return any(first <= ord(letter) <= last for first, last in JOINED)
