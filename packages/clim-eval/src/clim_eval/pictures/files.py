"""Figures as files: small enough for a page, and never half written."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from clim_data.files import write_bytes
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150

# Largest size of a figure's file; a larger figure gets fewer dots, or 255 colours.
MAX_WIDTH = 1400
MAX_BYTES = 300_000
# No dithering: it looks worse than 255 flat colours, and makes larger files.
DITHER = Image.Dither.NONE
# Longest side of the copy on which the colours are chosen.
PALETTE_PX = 384


def write_png(path: Path, figure: Figure | str | os.PathLike) -> None:
    """Save a matplotlib Figure as a PNG of at most `DPI`, `MAX_WIDTH` and `MAX_BYTES`, or copy an
    existing PNG; the file appears whole or not at all."""
    if isinstance(figure, str | os.PathLike):
        if not Path(figure).is_file():
            raise FileNotFoundError(
                f"{figure} does not exist: pass a matplotlib Figure or the path of a PNG"
            )
        write_bytes(path, Path(figure).read_bytes())
        return

    write_bytes(path, _png_of(figure))


def write_figure(path: Path, figure: Figure) -> None:
    """Save a matplotlib Figure in the format of its name, with the limits of `write_png`.

    Raises:
        ValueError: the name does not end in .jpg, .png or .webp.
    """
    # Imported here: it brings torch, which takes a second.
    from clim_models.pipelines import picture_format, write_picture

    if picture_format(path) == "PNG":
        write_png(path, figure)
    else:
        write_picture(Image.open(io.BytesIO(_png_of(figure))).convert("RGB"), path)


def _png_of(figure: Figure) -> bytes:
    """Return a figure as a PNG of at most `DPI`, `MAX_WIDTH` and `MAX_BYTES`."""
    drawn = _draw(figure, DPI)
    width = Image.open(io.BytesIO(drawn)).width
    if width > MAX_WIDTH:
        drawn = _draw(figure, DPI * MAX_WIDTH / (width + 1))
    return drawn if len(drawn) <= MAX_BYTES else _with_few_colours(drawn)


def _draw(figure: Figure, dpi: float) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer, dpi=dpi, format="png", facecolor="white", bbox_inches="tight", pad_inches=0.08
    )
    return buffer.getvalue()


def _with_few_colours(png: bytes) -> bytes:
    """Return a PNG with 255 colours, made smaller until it fits `MAX_BYTES`."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    colours = _palette(image)
    while True:
        buffer = io.BytesIO()
        image.quantize(palette=colours, dither=DITHER).save(buffer, format="PNG", optimize=True)
        excess = buffer.tell() / MAX_BYTES
        if excess <= 1 or max(image.size) < 64:
            return buffer.getvalue()
        # Bytes follow the area; a little smaller than that, so that the next try fits.
        side = min(0.95, 0.97 * excess**-0.5)
        smaller = (round(side * image.width), round(side * image.height))
        image = image.resize(smaller, Image.Resampling.LANCZOS)


def _palette(image: Image.Image) -> Image.Image:
    """Return an image whose palette has the 255 colours that suit a picture best.

    They are chosen on a small copy: on a large photograph the k-means would take 20 s.
    """
    small = image.copy()
    small.thumbnail((PALETTE_PX, PALETTE_PX), Image.Resampling.NEAREST)  # makes no new colours
    return small.quantize(255, Image.Quantize.MEDIANCUT, kmeans=2, dither=DITHER)
