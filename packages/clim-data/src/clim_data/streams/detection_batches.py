"""Raw samples to batches of images with boxes in pixels, for detectors.

Letters: B images, n_i boxes of image i, S side of an image, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from clim_data.faults import BrokenSample, SampleWarning
from clim_data.matching.box_json import BoxRules
from clim_data.matching.boxes import BoxTable, load_boxes
from clim_data.pixels.decode import decode_rgb, open_image
from clim_data.pixels.jitter import JitterDraw, JitterView, jitter
from clim_data.sources.expand import Sources
from clim_data.sources.shards import RawSample
from clim_data.sources.store import SampleStore
from clim_data.streams.batches import TensorBatch
from clim_data.streams.draw import SampleRandom, background_colour
from clim_data.streams.epochs import EpochLoader
from clim_data.streams.loaders import open_store
from clim_data.streams.options import StreamOptions, check_whole
from clim_data.streams.repeats import RepeatedSamples, repeat_factors

View = TypeVar("View")

# Smaller boxes and pictures are skipped, in pixels of the picture.
SHORTEST_BOX = 1.0
SHORTEST_SIDE = 32


@dataclass(frozen=True)
class DetectionBatch(TensorBatch):
    """Views of images with their boxes.

    Attributes:
        images: uint8 (B, 3, S, S), zeros outside the windows.
        windows: int64 (B, 4), left, top, right, bottom of the picture in each image.
        boxes: B tensors (n_i, 4) float32, XYXY in pixels of the image; n_i may be 0.
        labels: B tensors (n_i,) int64, indices into the loader's `class_names`.
        keys: B names.
        masks: B tensors, bool, the pixels inside the boxes, row by row and box after box; None
            without masks. With masks, boxes are whole numbers that enclose them exactly.
    """

    images: Tensor
    windows: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    keys: list[str]
    masks: list[Tensor] | None = None

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, kw_only=True)
class ViewRules:
    """Rules for the boxes that train a detector, and for the views of images.

    Raises:
        ValueError: a rule is out of range, or `classes` is one string.
    """

    classes: Sequence[str] | None = None
    """Names of the categories that count, such as the base classes; None takes all."""
    frequencies: Sequence[str] = ()
    """Of the categories of LVIS that count: "f" (frequent), "c" (common), "r" (rare). () takes
    all."""
    masks: bool = False
    """Read masks, too; boxes without one are dropped."""
    repeat_below: float | None = None
    """Images with a class that is on a smaller share of the images come several times in an epoch
    (see `repeat_factors`; 0.001 is LVIS's); None takes every image once."""
    flip_padding: bool = False
    """See `jitter`."""

    def __post_init__(self) -> None:
        if isinstance(self.classes, str):
            raise ValueError(
                f"classes={self.classes!r} is one string: pass a list, such as [{self.classes!r}]"
            )
        if self.classes is not None and not len(self.classes):
            raise ValueError("classes=[] leaves no class to train: name one, or pass None for all")
        if unknown := set(self.frequencies) - set("fcr"):
            raise ValueError(f'frequencies={sorted(unknown)} are not known: use "f", "c" and "r"')
        if self.repeat_below is not None and not 0 < self.repeat_below <= 1:
            raise ValueError(
                f"repeat_below={self.repeat_below} must be a share of the images, above 0 and at "
                "most 1, or None"
            )


def make_views(
    samples: Sequence[RawSample],
    make: Callable[[RawSample, int], tuple[View, Tensor, SampleWarning | None]],
) -> tuple[list[View], list[Tensor], list[str], list[BrokenSample]]:
    """Make the views of a batch, and skip unusable samples.

    Args:
        make: takes a sample and its row in the batch, and returns its view, the labels of its
            boxes, and a warning or None. It may raise BrokenSample.

    Returns:
        Views, labels and keys of the usable samples, and the faults of the others.
    """
    views: list[View] = []
    labels: list[Tensor] = []
    keys: list[str] = []
    faults: list[BrokenSample] = []
    for sample in samples:
        try:
            view, label, warning = make(sample, len(views))
        except BrokenSample as fault:
            faults.append(fault)
            continue

        if warning is not None:
            faults.append(warning)
        views.append(view)
        labels.append(label)
        keys.append(sample.key)
    return views, labels, keys, faults


@dataclass(frozen=True)
class DetectionBuilder:
    """Makes `DetectionBatch`es; see `DetectionLoader` for the options."""

    image_px: int
    table: BoxTable
    flip_padding: bool
    background: str
    max_pixels: int | None

    def __call__(
        self, samples: Sequence[RawSample], draw: SampleRandom
    ) -> tuple[DetectionBatch | None, list[BrokenSample]]:
        # Views are written where they stay.
        images = torch.zeros(len(samples), 3, self.image_px, self.image_px, dtype=torch.uint8)
        views, labels, keys, faults = make_views(
            samples, lambda one, row: self._view(one, draw, images[row])
        )
        if not views:
            return None, faults

        batch = DetectionBatch(
            images if len(views) == len(images) else images[: len(views)].clone(),
            torch.tensor([view.window for view in views]),
            [view.boxes for view in views],
            labels,
            keys,
            None if self.table.masks is None else [_mask_pixels(view) for view in views],
        )
        return batch, faults

    def _view(
        self, sample: RawSample, draw: SampleRandom, out: Tensor
    ) -> tuple[JitterView, Tensor, SampleWarning | None]:
        image = open_image(sample.image, sample.name, max_pixels=self.max_pixels)
        boxes, labels, warning = self.table.of_image(sample, image)
        masks = self.table.masks_of_image(sample.number)
        colour = background_colour(sample, draw, self.background)
        picture = decode_rgb(image, background=colour, name=sample.name)

        purpose = f"jitter {sample.copy}" if sample.copy else "jitter"
        chosen = JitterDraw.of(draw.rng(sample.name, purpose))
        view = jitter(
            picture,
            boxes,
            chosen,
            self.image_px,
            masks=masks,
            flip_padding=self.flip_padding,
            out=out,
        )
        return view, labels[view.rows], warning


def _mask_pixels(view: JitterView) -> Tensor:
    pixels = [mask.pixels.reshape(-1) for mask in view.masks or ()]
    return torch.from_numpy(np.concatenate([np.zeros(0, dtype=bool), *pixels]))


class DetectionLoader(EpochLoader[DetectionBatch]):
    """Endless epochs of `DetectionBatch`es: large-scale jitter of images with the boxes of a COCO
    or LVIS json.

    Ratio, crop and mirroring of a view follow from (seed, epoch, sample). Order, ranks, workers,
    broken samples and resuming are those of `MosaicLoader`. A view without a box is a view of
    background, and trains.

    Skipped and named: images without a usable box, images with a side below 32 px, boxes outside
    their image, thinner than 1 px, of unknown categories or, where masks are read, without one.
    Crowd regions do not count. LVIS's lists of absent and of not exhaustively annotated classes
    are for evaluation and are not read.

    Args:
        sources: as in `MosaicLoader`; also plain folders of image files.
        image_px: S.
        boxes: COCO or LVIS json; its file names are those in the folder, or without ending the keys
            in shards.
        rules: which boxes train, and whether masks are read.
        stream: batch size, order, ranks, workers and the rest.

    Attributes:
        class_names: all K categories of the json, in the order of their ids.
        trained_names: those that have a box that trains.
        image_counts: K numbers of images with such a box.

    Raises:
        ValueError: an option is out of range, a class is not in the json, the json names no image
            of the sources or has no masks, or there are fewer samples than ranks.
        FileNotFoundError: a source matches nothing, or there is no such json.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        image_px: int,
        boxes: str | Path,
        rules: ViewRules | None = None,
        stream: StreamOptions,
    ):
        check_whole("image_px", image_px, 1)
        rules = rules or ViewRules()
        store = open_store(sources, stream, texts=False)
        table = load_boxes(boxes, store, BoxRules(crowd="skip", masks=rules.masks))
        table = _trainable(table, store, rules, boxes)

        pairs = np.unique(np.stack([table.owners(), table.labels], axis=1), axis=0)
        counts = np.bincount(pairs[:, 1], minlength=len(table.class_names)).tolist()
        self.class_names: list[str] = list(table.class_names)
        self.image_counts: list[int] = counts
        self.trained_names: list[str] = [
            name for name, count in zip(self.class_names, counts, strict=True) if count
        ]

        samples: SampleStore | RepeatedSamples = store
        if rules.repeat_below is not None:
            factors = repeat_factors(pairs[:, 0], pairs[:, 1], len(table), rules.repeat_below)
            samples = RepeatedSamples(store, factors)
        build = DetectionBuilder(
            image_px=image_px,
            table=table,
            flip_padding=rules.flip_padding,
            background=stream.background,
            max_pixels=stream.max_pixels,
        )
        stamp = f"{table.stamp()}|{image_px}|{rules.flip_padding}"
        super().__init__(samples, build, stream, build_stamp=stamp)


def _trainable(table: BoxTable, store: SampleStore, rules: ViewRules, path: str | Path) -> BoxTable:
    """Leave boxes of some classes that are large enough, and the images that have any."""
    counts = _trained_classes(table, rules, path)
    sides = table.boxes[:, 2:] - table.boxes[:, :2]
    usable = counts[table.labels] & (sides >= SHORTEST_BOX).all(axis=1)
    fewer = table.take_boxes(usable)

    is_large = table.sizes.min(axis=1) >= SHORTEST_SIDE
    kept = (np.diff(fewer.starts) > 0) & is_large
    for row in np.flatnonzero(~kept):
        reason = "no usable box" if is_large[row] else "small image"
        store.skipped.add(BrokenSample(reason, table.images[row][1]))
    if not kept.any():
        raise ValueError(
            f"no image of the sources has a box that trains in {path} "
            f"({store.skipped.summary(3)}): give the file of these images and its class names"
        )

    store.keep(kept)
    return fewer.take(np.flatnonzero(kept))


def _trained_classes(table: BoxTable, rules: ViewRules, path: str | Path) -> np.ndarray:
    """Return which classes train, bool (K,)."""
    names = set(table.class_names if rules.classes is None else rules.classes)
    unknown = sorted(names - set(table.class_names))
    if unknown:
        raise ValueError(f"{unknown[:8]} are no categories of {path}: spell names as the file does")

    counts = np.array([name in names for name in table.class_names])
    if not rules.frequencies:
        return counts
    if not all(table.frequencies):
        raise ValueError(
            f"the categories of {path} have no frequency: give a file of LVIS, or name the classes "
            "in place of frequencies"
        )
    counts &= np.array([one in rules.frequencies for one in table.frequencies])
    if not counts.any():
        raise ValueError(
            f"no class of {path} has a frequency of {list(rules.frequencies)}: no class is left to "
            "train; name other frequencies or classes"
        )
    return counts
