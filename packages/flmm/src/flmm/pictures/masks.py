"""Masks drawn over an image in colours, each with its phrase. Matplotlib is imported when
drawing."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from clim_eval.pictures import INK, PALETTE, SIDE, STYLE
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Phrases and answers are drawn as they stand: a "$" begins no formula.
FIGURE_STYLE: dict[Any, Any] = {**STYLE, "text.parse_math": False}
# The palette's grey is missing: it is hard to see on photographs.
COLOURS = PALETTE[:6]


def colour_of(index: int) -> str:
    """Colour of the phrase with this number; they repeat after six."""
    return COLOURS[index % len(COLOURS)]


def grounding_figure(
    image: Image.Image, masks: np.ndarray, phrases: Sequence[str], *, title: str = ""
) -> Figure:
    """Draw an image with the masks of its phrases, their names on them and beneath.

    Args:
        masks: bool (N, H, W) at the image's size.
        phrases: N texts. A phrase whose mask is empty is named beneath as "not found".
        title: a line or more above the image, such as an answer.

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
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows, columns = len(images), max(len(of_image) for of_image in masks)
    tallest = max(image.height / image.width for image in images)
    height = SIDE * min(tallest, 1.5)
    with rc_context(FIGURE_STYLE):
        figure = Figure(figsize=(columns * (SIDE + 0.2), rows * (height + 0.75) + 0.3))
        figure.set_layout_engine("constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for row, (image, of_image, texts) in enumerate(zip(images, masks, phrases, strict=True)):
            for axis, (title, drawn) in zip(axes[row], of_image.items()):
                _draw(axis, image, drawn, texts)
                axis.set_title(fill(title, 38))
    return figure


def _draw(axis: Axes, image: Image.Image, masks: np.ndarray, phrases: Sequence[str]) -> None:
    """One panel."""
    if len(masks) != len(phrases) or masks.shape[1:] != (image.height, image.width):
        raise ValueError(
            f"masks of shape {masks.shape} for {len(phrases)} phrases on an image of "
            f"{image.height} x {image.width}: "
            "pass one (H, W) mask for each phrase"
        )
    from matplotlib.colors import to_rgb

    shown = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    for index, mask in enumerate(masks):
        shown[mask] = 0.45 * shown[mask] + 0.55 * np.array(
            to_rgb(colour_of(index)), dtype=np.float32
        )
    axis.imshow(shown)
    missed = []
    for index, (mask, phrase) in enumerate(zip(masks, phrases)):
        if not mask.any():
            missed.append(phrase)
            continue
        rows, columns = (np.arange(-1, size + 1) for size in mask.shape)
        axis.contour(columns, rows, np.pad(mask, 1), levels=[0.5], colors=["white"], linewidths=1)
        y, x = (float(places.mean()) for places in np.nonzero(mask))
        box = {
            "boxstyle": "round,pad=0.2",
            "facecolor": colour_of(index),
            "edgecolor": "white",
            "alpha": 0.9,
        }
        axis.text(
            x,
            y,
            fill(phrase, 24),
            color="white",
            fontsize=8,
            ha="center",
            va="center",
            bbox=box,
            clip_on=True,
        )
    axis.set_xlim(-0.5, image.width - 0.5)
    axis.set_ylim(image.height - 0.5, -0.5)
    if missed:
        axis.set_xlabel(fill(f"not found: {', '.join(missed)}", 44), fontsize=8, color=INK)
    axis.set_xticks([])
    axis.set_yticks([])
