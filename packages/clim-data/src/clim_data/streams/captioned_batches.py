"""Pictures without boxes, and mosaics of them, with captions and tags, from which detectors learn
classes without annotations.

Letters: B images, T_i pictures of image i, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clim_data.faults import BrokenSample
from clim_data.matching.tagged_captions import TaggedCaptions
from clim_data.pixels.canvas import CanvasDraw, lay_canvas
from clim_data.pixels.jitter import resize_bilinear
from clim_data.sources.shards import RawSample
from clim_data.sources.store import SampleStore
from clim_data.streams.batches import TensorBatch
from clim_data.streams.draw import SampleRandom
from clim_data.streams.whole_pictures import PictureReader, pad_pictures


@dataclass(frozen=True)
class CaptionedBatch(TensorBatch):
    """Images of one picture, or mosaics of several.

    Attributes:
        images: uint8 (B, 3, H, W), zeros outside the windows.
        windows: int64 (B, 4), left, top, right, bottom of the content of each image.
        tiles: B tensors (T_i, 4) float32, boxes of the pictures, XYXY in pixels, row by row.
        numbers: B tensors (T_i,) int64; a picture has the same number in every step.
        tags: B tensors bool (T_i, K).
        captions: one of each picture, image by image.
        keys: B names; of a mosaic the name of its first picture.
    """

    images: Tensor
    windows: Tensor
    tiles: list[Tensor]
    numbers: list[Tensor]
    tags: list[Tensor]
    captions: list[str]
    keys: list[str]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class _Picture:
    """A decoded picture and its sample."""

    sample: RawSample
    pixels: Tensor


@dataclass(frozen=True)
class CaptionBuilder:
    """Makes `CaptionedBatch`es of single pictures.

    Attributes:
        reader: of the pictures.
        table: captions and tags of the samples.
    """

    reader: PictureReader
    table: TaggedCaptions

    def __call__(
        self, samples: Sequence[RawSample], draw: SampleRandom
    ) -> tuple[CaptionedBatch | None, list[BrokenSample]]:
        pictures, faults = [], []
        for sample in samples:
            try:
                pictures.append(_Picture(sample, self.reader(sample, draw, "picture")))
            except BrokenSample as fault:
                faults.append(fault)
        if not pictures:
            return None, faults

        images, windows = pad_pictures([picture.pixels for picture in pictures])
        tiles = [window[None].float() for window in windows]
        members = [[picture.sample] for picture in pictures]
        return _batch(images, windows, tiles, (members, draw, self.table)), faults


@dataclass(frozen=True)
class CanvasBuilder:
    """Makes `CaptionedBatch`es of mosaics: of each sample one, in which it is the first picture.

    The other pictures come from a pool of samples drawn for the step, so that a picture which is in
    several mosaics is decoded once. In a mosaic every picture is another one, as long as the pool
    has enough.

    Attributes:
        reader: of the pictures.
        table: captions and tags of the samples.
        store: the samples of the pool.
        cell: side of a cell, in pixels.
        final: side of a mosaic after it is resized, in pixels.
        pool: number of samples of a pool.
    """

    reader: PictureReader
    table: TaggedCaptions
    store: SampleStore
    cell: int
    final: int
    pool: int

    def __call__(
        self, samples: Sequence[RawSample], draw: SampleRandom
    ) -> tuple[CaptionedBatch | None, list[BrokenSample]]:
        pool = _Pool(self.reader, self.store, draw, {sample.number: sample for sample in samples})
        first = samples[0].name if samples else ""
        rng = draw.rng(first, "pool")
        drawn = rng.sample(range(len(self.store)), min(self.pool, len(self.store)))

        images, tiles, members = [], [], []
        for sample in samples:
            chosen = self._pictures(sample, pool, drawn)
            if not chosen:
                continue
            canvas, boxes = lay_canvas(
                [picture.pixels for picture in chosen],
                (self.cell, self.cell),
                self._canvas_draw(sample, draw),
            )
            images.append(resize_bilinear(canvas, (self.final, self.final)))
            tiles.append(boxes * (self.final / canvas.shape[1]))
            members.append([picture.sample for picture in chosen])
        if not images:
            return None, pool.faults

        padded, windows = pad_pictures(images)
        return _batch(padded, windows, tiles, (members, draw, self.table)), pool.faults

    def _canvas_draw(self, sample: RawSample, draw: SampleRandom) -> CanvasDraw:
        return CanvasDraw.of(draw.rng(sample.name, "canvas"))

    def _pictures(self, sample: RawSample, pool: "_Pool", drawn: list[int]) -> list[_Picture]:
        """Return the pictures of one mosaic; none where its first one cannot be decoded."""
        own = pool.picture(sample.number)
        if own is None:
            return []
        wanted = self._canvas_draw(sample, pool.draw).side ** 2 - 1
        rng = pool.draw.rng(sample.name, "partners")
        others = [number for number in drawn if number != sample.number]
        rng.shuffle(others)

        found: list[_Picture] = []
        for number in others:
            if len(found) == wanted:
                break
            picture = pool.picture(number)
            if picture is not None:
                found.append(picture)
        # A small pool gives its pictures several times.
        again = list(found) or [own]
        while len(found) < wanted:
            found.append(again[len(found) % len(again)])
        return [own, *found]


class _Pool:
    """The pictures of a step, each read and decoded when it is first asked for."""

    def __init__(
        self,
        reader: PictureReader,
        store: SampleStore,
        draw: SampleRandom,
        samples: dict[int, RawSample],
    ):
        self.reader, self.store, self.draw, self.samples = reader, store, draw, samples
        self.faults: list[BrokenSample] = []
        self._pictures: dict[int, _Picture | None] = {}

    def picture(self, number: int) -> _Picture | None:
        """Return the picture of a sample; None, and a fault, if it cannot be used."""
        if number not in self._pictures:
            try:
                sample = self.samples.get(number) or self.store.read(number)
                pixels = self.reader(sample, self.draw, "tile")
                self._pictures[number] = _Picture(sample, pixels)
            except BrokenSample as fault:
                self.faults.append(fault)
                self._pictures[number] = None
        return self._pictures[number]


def _batch(
    images: Tensor,
    windows: Tensor,
    tiles: list[Tensor],
    about: tuple[list[list[RawSample]], SampleRandom, TaggedCaptions],
) -> CaptionedBatch:
    """Look up the captions and tags of the pictures of each image."""
    members, draw, table = about
    numbers, tags, captions = [], [], []
    for samples in members:
        rows = [sample.number for sample in samples]
        numbers.append(torch.tensor(rows))
        marks = torch.zeros(len(rows), table.num_classes, dtype=torch.bool)
        for mark, row in zip(marks, rows, strict=True):
            mark[list(table.tags[row])] = True
        tags.append(marks)

        for sample in samples:
            texts = table.captions[sample.number]
            choice = int(draw.rng(sample.name, "caption").random() * len(texts))
            captions.append(texts[choice])
    keys = [samples[0].key for samples in members]
    return CaptionedBatch(images, windows, tiles, numbers, tags, captions, keys)
