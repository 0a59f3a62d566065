"""Raw samples to batches of images with boxes in pixels: what detectors train on.

Letters: B images, n_i boxes of image i, S side of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
    """

    images: Tensor
    windows: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    keys: list[str]

    def __len__(self) -> int:
        return len(self.keys)


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
        views: list[JitterView] = []
        faults: list[BrokenSample] = []
        labels, keys = [], []
        for sample in samples:
            try:
                view, label, warning = self._view(sample, draw)
            except BrokenSample as fault:
                faults.append(fault)
                continue
            if warning is not None:
                faults.append(warning)
            views.append(view)
            labels.append(label)
            keys.append(sample.key)
        if not views:
            return None, faults

        batch = DetectionBatch(
            torch.stack([view.image for view in views]),
            torch.tensor([view.window for view in views]),
            [view.boxes for view in views],
            labels,
            keys,
        )
        return batch, faults

    def _view(
        self, sample: RawSample, draw: SampleRandom
    ) -> tuple[JitterView, Tensor, SampleWarning | None]:
        image = open_image(sample.image, sample.name, max_pixels=self.max_pixels)
        boxes, labels, warning = self.table.of_image(sample, image)
        colour = background_colour(sample, draw, self.background)
        picture = decode_rgb(image, background=colour, name=sample.name)

        chosen = JitterDraw.of(draw.rng(sample.name, "jitter"))
        view = jitter(picture, boxes, chosen, self.image_px, flip_padding=self.flip_padding)
        return view, labels[view.rows], warning


class DetectionLoader(EpochLoader[DetectionBatch]):
    """Endless epochs of `DetectionBatch`es: large-scale jitter of images with the boxes of a COCO
    or LVIS json.

    Ratio, crop and mirroring of a view follow from (seed, epoch, sample). Order, ranks, workers,
    broken samples and resuming are those of `MosaicLoader`. A view without a box is a view of
    background, and trains.

    Skipped and named: images without a usable box, images with a side below 32 px, boxes outside
    their image, thinner than 1 px or of unknown categories. Crowd regions do not count.

    Args:
        sources: as in `MosaicLoader`; also plain folders of image files.
        image_px: S.
        boxes: COCO or LVIS json; its file names are those in the folder, or without ending the keys
            in shards.
        classes: names of the categories that count, such as the base classes; None takes all.
        flip_padding: see `jitter`.
        stream: batch size, order, ranks, workers and the rest.

    Attributes:
        class_names: all categories of the json, in the order of their ids.
        trained_names: those that have a box that trains.

    Raises:
        ValueError: an option is out of range, a class is not in the json, the json names no image
            of the sources, or there are fewer samples than ranks.
        FileNotFoundError: a source matches nothing, or there is no such json.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        image_px: int,
        boxes: str | Path,
        classes: Sequence[str] | None = None,
        flip_padding: bool = False,
        stream: StreamOptions,
    ):
        check_whole("image_px", image_px, 1)
        store = open_store(sources, stream, texts=False)
        table = load_boxes(boxes, store, BoxRules(crowd="skip"))
        self.class_names: list[str] = list(table.class_names)
        table = _trainable(table, store, classes, boxes)
        present = np.unique(table.labels).tolist()
        self.trained_names: list[str] = [self.class_names[label] for label in present]

        build = DetectionBuilder(
            image_px=image_px,
            table=table,
            flip_padding=flip_padding,
            background=stream.background,
            max_pixels=stream.max_pixels,
        )
        super().__init__(
            store, build, stream, build_stamp=f"{table.stamp()}|{image_px}|{flip_padding}"
        )


def _trainable(
    table: BoxTable, store: SampleStore, classes: Sequence[str] | None, path: str | Path
) -> BoxTable:
    """Leave boxes of some classes that are large enough, and the images that have any."""
    if isinstance(classes, str):
        raise ValueError(f"classes={classes!r} is one string: pass a list, such as [{classes!r}]")
    names = set(table.class_names if classes is None else classes)
    unknown = sorted(names - set(table.class_names))
    if unknown:
        raise ValueError(f"{unknown[:8]} are no categories of {path}: spell names as the file does")

    counts = np.array([name in names for name in table.class_names])
    sides = table.boxes[:, 2:] - table.boxes[:, :2]
    usable = counts[table.labels] & (sides >= SHORTEST_BOX).all(axis=1)
    owners = np.repeat(np.arange(len(table)), np.diff(table.starts))
    per_image = np.bincount(owners[usable], minlength=len(table))
    is_large = table.sizes.min(axis=1) >= SHORTEST_SIDE
    kept = (per_image > 0) & is_large
    for row in np.flatnonzero(~kept):
        reason = "no usable box" if is_large[row] else "small image"
        store.skipped.add(BrokenSample(reason, table.images[row][1]))
    if not kept.any():
        raise ValueError(
            f"no image of the sources has a box that trains in {path} "
            f"({store.skipped.summary(3)}): give the file of these images and its class names"
        )

    fewer = replace(
        table,
        boxes=table.boxes[usable],
        labels=table.labels[usable],
        starts=np.concatenate([[0], np.cumsum(per_image)]),
    )
    store.keep(kept)
    return fewer.take(np.flatnonzero(kept))
