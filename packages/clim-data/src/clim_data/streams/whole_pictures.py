"""Whole pictures as detectors see them: resized or cropped at random, of any size, padded to one.

Letters: B images, H W pixels of the largest, rounded up.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clim_data.faults import BrokenSample, SampleWarning
from clim_data.matching.boxes import BoxTable
from clim_data.pixels.decode import decode_rgb, open_image, oriented_size
from clim_data.pixels.jitter import CutView, JitterDraw, crop_of, cut_view, jittered_size
from clim_data.pixels.transforms import short_side_size
from clim_data.sources.shards import RawSample
from clim_data.streams.detection_batches import DetectionBatch, make_views
from clim_data.streams.draw import SampleRandom, background_colour

# Sides of a batch are multiples of it.
MULTIPLE = 32


@dataclass(frozen=True)
class PictureRules:
    """Rules for the size of a picture. It is mirrored in half of the cases.

    Attributes:
        short: the short side becomes this; with `ratios`, the side of the square of a crop.
        long: the long side stays within it. Only without `ratios`.
        ratios: None resizes the whole picture. Else its long side becomes `short` times a ratio
            drawn between these two, and of each side at most `short` pixels remain.
    """

    short: int
    long: int
    ratios: tuple[float, float] | None = None

    def plan(
        self, size: tuple[int, int], rng: random.Random
    ) -> tuple[tuple[int, int], tuple[slice, slice], bool]:
        """Draw the view of a picture of (height, width): new size, crop, and mirroring."""
        if self.ratios is None:
            new = short_side_size(size, self.short, self.long)
            return new, (slice(0, new[0]), slice(0, new[1])), rng.random() < 0.5
        draw = JitterDraw.of(rng, self.ratios)
        new = jittered_size(size, self.short, draw.ratio)
        return new, crop_of(new, self.short, draw), draw.flip


@dataclass(frozen=True)
class PictureReader:
    """Decodes pictures without annotations, at no more pixels than they need.

    Attributes:
        rules: how they are resized.
        background: see `StreamOptions`.
        max_pixels: see `StreamOptions`.
    """

    rules: PictureRules
    background: str
    max_pixels: int | None

    def __call__(self, sample: RawSample, draw: SampleRandom, purpose: str) -> Tensor:
        """Return the picture, uint8 (3, h, w).

        Args:
            sample: its image.
            draw: of the batch.
            purpose: distinguishes several views of a sample in one step.

        Raises:
            BrokenSample: the image cannot be decoded.
        """
        image = open_image(sample.image, sample.name, max_pixels=self.max_pixels)
        width, height = oriented_size(image)
        new, crop, flip = self.rules.plan((height, width), draw.rng(sample.name, purpose))
        colour = background_colour(sample, draw, self.background)
        picture = decode_rgb(
            image,
            at_least=(new[1], new[0]),
            background=colour,
            name=sample.name,
            oriented=True,
        )
        return cut_view(picture, torch.zeros(0, 4), new, crop=crop, flip=flip).image


@dataclass(frozen=True)
class ResizedBuilder:
    """Makes `DetectionBatch`es of whole pictures; masks are not read."""

    rules: PictureRules
    table: BoxTable
    background: str
    max_pixels: int | None

    def __call__(
        self, samples: Sequence[RawSample], draw: SampleRandom
    ) -> tuple[DetectionBatch | None, list[BrokenSample]]:
        views, labels, keys, faults = make_views(samples, lambda one, _: self._view(one, draw))
        if not views:
            return None, faults

        images, windows = pad_pictures([view.image for view in views])
        boxes = [view.boxes for view in views]
        return DetectionBatch(images, windows, boxes, labels, keys), faults

    def _view(
        self, sample: RawSample, draw: SampleRandom
    ) -> tuple[CutView, Tensor, SampleWarning | None]:
        image = open_image(sample.image, sample.name, max_pixels=self.max_pixels)
        boxes, labels, warning = self.table.of_image(sample, image)
        colour = background_colour(sample, draw, self.background)
        picture = decode_rgb(image, background=colour, name=sample.name)

        size = (picture.shape[1], picture.shape[2])
        new, crop, flip = self.rules.plan(size, draw.rng(sample.name, "view"))
        view = cut_view(picture, boxes, new, crop=crop, flip=flip)
        return view, labels[view.rows], warning


def pad_pictures(pictures: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Put pictures of any sizes into one tensor, zeros at the right and the bottom.

    Returns:
        uint8 (B, 3, H, W), and int64 (B, 4), left, top, right, bottom of each picture.
    """
    sizes = torch.tensor([picture.shape[1:] for picture in pictures])
    height, width = ((sizes.amax(0) + MULTIPLE - 1) // MULTIPLE * MULTIPLE).tolist()
    batch = torch.zeros(len(pictures), 3, height, width, dtype=torch.uint8)
    for place, picture in zip(batch, pictures, strict=True):
        place[:, : picture.shape[1], : picture.shape[2]] = picture
    return batch, torch.cat([torch.zeros_like(sizes), sizes.flip(1)], 1)
