"""Masks drawn over an image in colours, each with its phrase. Matplotlib is imported when
drawing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from clim_eval.pictures import INK, PALETTE, SIDE, STYLE, can_draw, readable_on, text_options
from PIL import Image

from flmm.pictures.labels import (
    fit_lines,
    label_size,
    list_of_labels,
    mask_labels,
    place_labels,
    title_lines,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Without the palette's grey, which is hard to see on photographs.
COLOURS = PALETTE[:6]
FONT_SIZE = 8  # points, of labels
# Letters in a line of a panel's title, and of the text beneath it.
TITLE_LETTERS = 38
BENEATH_LETTERS = 44


def colour_of(index: int) -> str:
    """Colour of the phrase with this number; they repeat after six."""
    return COLOURS[index % len(COLOURS)]


def grounding_figure(
    image: Image.Image, masks: np.ndarray, phrases: Sequence[str], *, title: str = ""
) -> Figure:
    """Draw an image with the masks of its phrases, their names on them and beneath.

    Args:
        masks: bool (N, H, W) at the image's size.
        phrases: N texts. They are shortened, and numbered where they share a colour or a text. A
            phrase without room is a number in the image and named beneath; one whose mask is empty
            is named beneath as "not found".
        title: text above the image, such as an answer; its first three lines are drawn.

    Raises:
        ValueError: another number of masks than phrases, or masks of another size.
    """
    return scenes_figure([image], [{title: masks}], [phrases])


def scenes_figure(
    images: Sequence[Image.Image],
    masks: Sequence[dict[str, np.ndarray]],
    phrases: Sequence[Sequence[str]],
) -> Figure:
    """Draw several images, one a row, each with its masks from several sources side by side.

    Args:
        masks: for each image {title of a column: bool (N, H, W)}.
        phrases: N texts of each image.

    Raises:
        ValueError: another number of masks than phrases, or masks of another size.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    rows, columns = len(images), max(len(of_image) for of_image in masks)
    tallest = max(image.height / image.width for image in images)
    height = SIDE * min(tallest, 1.5)
    with style.context(STYLE):
        figure = Figure(figsize=(columns * (SIDE + 0.2), rows * (height + 0.75) + 0.3))
        figure.set_layout_engine("constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for row, (image, of_image, texts) in enumerate(zip(images, masks, phrases, strict=True)):
            for axis, (title, drawn) in zip(axes[row], of_image.items()):
                _draw(axis, image, drawn, texts, title)
    return figure


def _draw(
    axis: Axes, image: Image.Image, masks: np.ndarray, phrases: Sequence[str], title: str
) -> None:
    """Draw one panel."""
    if len(masks) != len(phrases) or masks.shape[1:] != (image.height, image.width):
        raise ValueError(
            f"masks of shape {masks.shape} for {len(phrases)} phrases on an image of "
            f"{image.height} x {image.width}: "
            "pass one (H, W) mask for each phrase"
        )
    _draw_masks(axis, image, masks)
    alone = _draw_labels(axis, masks, phrases)
    axis.set_xlim(-0.5, image.width - 0.5)
    axis.set_ylim(image.height - 0.5, -0.5)
    axis.set_xticks([])
    axis.set_yticks([])

    heading = title_lines(title, TITLE_LETTERS)
    axis.set_title(heading, **text_options(heading))
    lines = []
    if alone:
        lines.append(list_of_labels(phrases, alone, BENEATH_LETTERS))
    missed = [phrase for mask, phrase in zip(masks, phrases, strict=True) if not mask.any()]
    if missed:
        named = ", ".join(phrase for phrase in missed if can_draw(phrase)) or str(len(missed))
        lines.append(fit_lines(f"not found: {named}", BENEATH_LETTERS, 3))
    beneath = "\n".join(line for line in lines if line)
    if beneath:
        axis.set_xlabel(beneath, fontsize=FONT_SIZE, color=INK, **text_options(beneath))


def _draw_masks(axis: Axes, image: Image.Image, masks: np.ndarray) -> None:
    """Draw the picture with its masks in colours, outlined in white."""
    from matplotlib.colors import to_rgb

    shown = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    for index, mask in enumerate(masks):
        colour = np.array(to_rgb(colour_of(index)), dtype=np.float32)
        shown[mask] = 0.45 * shown[mask] + 0.55 * colour
    axis.imshow(shown)
    for mask in masks:
        if mask.any():
            rows, columns = (np.arange(-1, size + 1) for size in mask.shape)
            outline = np.pad(mask, 1)
            axis.contour(columns, rows, outline, levels=[0.5], colors=["white"], linewidths=1)


def _draw_labels(axis: Axes, masks: np.ndarray, phrases: Sequence[str]) -> list[int]:
    """Draw the labels of masks that are not empty, apart from each other.

    Returns:
        The numbers (from 0) of those that have room for a number only.
    """
    height, width = masks.shape[1:]
    letter_px = FONT_SIZE / 72 * max(height, width) / SIDE
    labels = mask_labels(phrases, colours=len(COLOURS))
    found = [index for index, mask in enumerate(masks) if mask.any()]

    centres, sizes = [], []
    for index in found:
        y, x = (float(places.mean()) for places in np.nonzero(masks[index]))
        centres.append((x, y))
        sizes.append(label_size(labels[index].text, letter_px))

    alone = []
    places = place_labels(centres, sizes, picture=(width, height))
    for index, centre, place in zip(found, centres, places, strict=True):
        text = labels[index].text if place is not None else labels[index].number
        if place is None:
            alone.append(index)

        x, y = place or centre
        box = {
            "boxstyle": "round,pad=0.2",
            "facecolor": colour_of(index),
            "edgecolor": "white",
            "alpha": 0.9,
        }
        axis.text(
            x,
            y,
            text,
            color=readable_on(colour_of(index)),
            fontsize=FONT_SIZE,
            ha="center",
            va="center",
            bbox=box,
            clip_on=True,
            **text_options(text),
        )
    return alone
