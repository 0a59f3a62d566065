"""What a run changed, on a few of the user's own images: `before_after.png` in the run folder.

Letters: C channels, H W pixels, h w feature positions, N examples.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from clim_data import BrokenSample, decode_rgb
from clim_data.sources import read_captions
from clim_eval import encode_texts, locate_texts
from clim_eval.pictures import SIDE, STYLE, Scale, draw_map, text_options, write_png
from clim_models import RegionModel, interpolate_weights
from safetensors.torch import load_file
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEFORE_AFTER = "before_after.png"
EXAMPLES = 3
MIDDLE = "the middle of this picture"
"""Title for an image without captions: its query is the image's own middle half."""


@dataclass(frozen=True)
class Example:
    """One of the user's images, and the query to find in it.

    Args:
        pixels: (3, H, W) uint8.
        text: caption; None uses the middle of the image as the query.
    """

    pixels: Tensor
    text: str | None


def write_before_after(
    model: RegionModel, loader: Any, folder: Path, *, alpha: float, image_px: int
) -> Path | None:
    """Draw where the model sees captions in a few images, before and after training.

    Args:
        model: with the trained weights, which are restored afterwards.
        loader: of the run; the first images of its `store` are used.
        folder: of the run, which has the weights of the start.
        alpha: of the export, whose weights are shown as "after".
        image_px: longest side at which the images are read.

    Returns the picture, None where no image can be read.
    """
    examples = read_examples(loader)
    if not examples:
        return None

    start = load_file(folder / "start.safetensors")
    trained = {name: model.state_dict()[name].cpu().clone() for name in start}
    exported = interpolate_weights(trained, start, alpha)

    with _evaluating(model):
        try:
            _load(model, start)
            queries = [_query(model, example) for example in examples]
            before = [_map(model, *pair, image_px) for pair in zip(examples, queries, strict=True)]
            _load(model, exported)
            after = [_map(model, *pair, image_px) for pair in zip(examples, queries, strict=True)]
        finally:
            _load(model, trained)

    path = folder / BEFORE_AFTER
    write_png(path, before_after_figure(examples, before, after))
    return path


def read_examples(loader: Any, count: int = EXAMPLES) -> list[Example]:
    """Return the first images that can be read, with their first captions."""
    found: list[Example] = []
    store: Any = getattr(loader, "store", None)
    if store is None:
        return found

    for number in range(min(len(store), 4 * count)):
        if len(found) == count:
            break
        try:
            sample = store.read(number)
            captions = read_captions(sample) if sample.text or sample.meta else []
            pixels = decode_rgb(sample.image, name=sample.name, oriented=True)
        except BrokenSample:
            continue
        found.append(Example(pixels, captions[0] if captions else None))
    return found


def before_after_figure(
    examples: list[Example], before: list[np.ndarray], after: list[np.ndarray]
) -> "Figure":
    """Draw a row for each example: image, map before, map after; a dot marks each map's peak.

    Args:
        before, after: N maps (h, w) of cosines. All maps have one hue and one scale.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    scale = Scale.of(*before, *after)
    width = 0.85 * SIDE
    # Inches of each row: the image as it is wide and high, at most upright 3:2, and a line of text.
    heights = []
    for example in examples:
        high, wide = example.pixels.shape[1:]
        heights.append(width * min(high / wide, 1.5) + 0.3)

    with style.context(STYLE):
        figure = Figure(figsize=(3 * width, sum(heights) + 0.6))
        figure.set_layout_engine("constrained")
        grid = figure.subplots(
            len(examples), 3, squeeze=False, gridspec_kw={"height_ratios": heights}
        )
        for axes, example, *maps in zip(grid, examples, before, after, strict=True):
            _draw_row(list(axes), example, maps, scale)
        grid[0][1].set_title("before")
        grid[0][2].set_title("after")
        figure.suptitle("Where the model sees the text: blue is similar, a dot is the peak")
    return figure


def _draw_row(axes: list[Any], example: Example, maps: list[np.ndarray], scale: Scale) -> None:
    pixels = example.pixels.permute(1, 2, 0).numpy()
    text = shorten(example.text or MIDDLE, 60, placeholder=" …")
    axes[0].imshow(pixels)
    axes[0].set_xlabel(text, fontsize=9, **text_options(text))

    height, width = pixels.shape[:2]
    for axis, values in zip(axes[1:], maps, strict=True):
        draw_map(axis, pixels, values, scale)
        row, column = np.unravel_index(values.argmax(), values.shape)
        place = (column + 0.5) * width / values.shape[1], (row + 0.5) * height / values.shape[0]
        axis.plot(*place, "o", markersize=7, color="white", markeredgecolor="black")
        axis.set_xlabel(f"cosine {values.min():.2f} to {values.max():.2f}", fontsize=9)

    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])


@contextmanager
def _evaluating(model: RegionModel) -> Iterator[None]:
    """Put the model into evaluation mode, without gradients."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _load(model: RegionModel, weights: Mapping[str, Tensor]) -> None:
    """Copy some of the model's weights; the others stay."""
    own = model.state_dict()
    for name, value in weights.items():
        own[name].copy_(value)


def _query(model: RegionModel, example: Example) -> Tensor:
    """Return (1, C), the feature of the caption, or of the middle half of the image."""
    if example.text is not None:
        return encode_texts(model, [example.text])

    height, width = example.pixels.shape[1:]
    middle = example.pixels[
        :, height // 4 : -(height // 4) or None, width // 4 : -(width // 4) or None
    ]
    side = list(model.image_size)
    crop = torch.nn.functional.interpolate(middle[None].float(), side, mode="bilinear")
    return model.encode_image(model.normalize_pixels(crop.round().to(torch.uint8)))


def _map(model: RegionModel, example: Example, query: Tensor, image_px: int) -> np.ndarray:
    """Return (h, w) cosines of the image's positions with the query."""
    return locate_texts(model, example.pixels, query, image_px=image_px).maps[0]
