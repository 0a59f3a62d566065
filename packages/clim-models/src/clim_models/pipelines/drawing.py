"""Drawings of regions and maps on a picture, with Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from clim_models.pipelines.labels import (
    fitted_text,
    label_font,
    readable_label,
    write_label,
)
from clim_models.pipelines.region import RegionResult

# Colours that colour-blind people can distinguish, too (Okabe and Ito), without black.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
# Longest side of a panel of maps, and of drawings of smaller pictures (or somewhat less).
PANEL_PX = SMALLEST_DRAWING_PX = 480
# Width that the title of a panel needs.
NARROWEST_PANEL_PX = 120
HEAT = np.array([213.0, 94.0, 0.0])


def draw_regions(picture: Tensor, regions: Sequence[RegionResult]) -> Image.Image:
    """Draw boxes, masks and names, the best region on top; small pictures are enlarged.

    Args:
        picture: uint8 RGB (3, height, width).
        regions: in pixels of the picture.
    """
    # A whole factor, so that pixels, masks and boxes stay aligned.
    times = max(1, SMALLEST_DRAWING_PX // max(picture.shape[1:]))
    pixels = _enlarge(picture.permute(1, 2, 0).numpy(), times)
    order = sorted(regions, key=lambda region: region.score)
    for region in order:
        if region.mask is not None:
            inside, tint = _enlarge(region.mask, times), np.array(_rgb(region))
            pixels[inside] = (0.55 * pixels[inside] + 0.45 * tint).astype(np.uint8)

    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    line_px = max(2, round(max(image.size) / 320))
    for region in order:
        draw.rectangle(_drawable(region.box, times), outline=_rgb(region), width=line_px)
    for region in order:
        name = readable_label(region.label or "none", region.class_id)
        box = _drawable(region.box, times)
        write_label(image, box, name, f"{region.score:.2f}", ground=_rgb(region))
    return image


def draw_maps(
    picture: Tensor,
    maps: np.ndarray,
    labels: Sequence[str],
    peaks: Sequence[tuple[float, float]],
) -> Image.Image:
    """Draw a panel for each map, next to each other: the picture in grey, warm where a label is.

    All panels have one scale, from the smallest to the largest value of all maps.

    Args:
        picture: uint8 RGB (3, height, width).
        maps: (K, h, w).
        labels: K names.
        peaks: (x, y) in pixels of the picture.
    """
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    scale = PANEL_PX / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    grey = np.asarray(image.convert("L").resize((width, height)), dtype=np.float32)[..., None]
    low, high = float(maps.min()), float(maps.max())

    font = label_font(14)
    gap, title = 6, 22
    column = max(width, NARROWEST_PANEL_PX)
    canvas = Image.new("RGB", (len(maps) * (column + gap) - gap, height + title), "white")
    for place, (values, label, peak) in enumerate(zip(maps, labels, peaks, strict=True)):
        strength = (values - low) / max(high - low, 1e-12)
        grown = Image.fromarray(strength.astype(np.float32)).resize((width, height))
        weight = 0.8 * np.clip(np.asarray(grown), 0, 1)[..., None] ** 2
        panel = Image.fromarray((grey * (1 - weight) + HEAT * weight).astype(np.uint8))
        draw = ImageDraw.Draw(panel)
        x, y = (value * scale for value in peak)
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill="white", outline="black")

        left = place * (column + gap)
        canvas.paste(panel, (left, title))
        name, most = readable_label(label, place), f"{values.max():.2f}"
        text = fitted_text(name, most, font, column - 2)
        ImageDraw.Draw(canvas).text((left + 2, 3), text, fill="black", font=font)
    return canvas


def _rgb(region: RegionResult) -> tuple[int, int, int]:
    colour = COLOURS[region.class_id % len(COLOURS)] if region.class_id >= 0 else "#777777"
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _enlarge(pixels: np.ndarray, times: int) -> np.ndarray:
    """Return a copy of pixels (height, width, ...) in which each is times x times large."""
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def _drawable(box: Sequence[float], times: int) -> tuple[float, float, float, float]:
    """Enlarge a box and order its corners: Pillow refuses one whose end is before its start."""
    x0, y0, x1, y1 = (times * value for value in box)
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
