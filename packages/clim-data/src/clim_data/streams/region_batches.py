"""Raw samples to batches of images with boxes: crops for self-distillation, labelled boxes for
RegionCLIP."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from clim_data.faults import BrokenSample, SampleWarning
from clim_data.matching.boxes import BoxTable
from clim_data.pixels import transforms as T
from clim_data.pixels.boxes import padded_boxes
from clim_data.pixels.crops import (
    Window,
    crop_window,
    cut_crops,
    draw_cells,
    draw_order,
    enough_pixels,
)
from clim_data.pixels.decode import decode_rgb, open_image
from clim_data.sources.shards import RawSample
from clim_data.streams.batches import TensorBatch
from clim_data.streams.draw import SampleRandom, background_colour
from clim_data.streams.options import CropRules


@dataclass(frozen=True)
class CropBatch(TensorBatch):
    """Images and crops of their regions.

    images: uint8 (B, 3, S, S), letterboxed, zeros at the right and the bottom; channels-last in
    memory. boxes: B tensors (n_i, 4) float32, XYXY in [0, 1] of the padded square.
    crops: uint8 (sum n_i, 3, c, c), image by image in the order of the boxes, letterboxed around
    their centre. keys: B names.
    """

    images: Tensor
    boxes: list[Tensor]
    crops: Tensor
    keys: list[str]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class BoxBatch(TensorBatch):
    """Images with labelled boxes.

    images, boxes, keys: as in `CropBatch`.
    labels: int64 (sum n_i,), indices into the loader's `class_names`, image by image in the order
    of the boxes.
    """

    images: Tensor
    boxes: list[Tensor]
    labels: Tensor
    keys: list[str]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class _View:
    """The boxes of one image, their crops or labels, and a warning about the image or None."""

    boxes: Tensor
    beside: Tensor
    key: str
    warning: SampleWarning | None = None


@dataclass(frozen=True)
class CropBuilder:
    """Makes `CropBatch`es: see `CropLoader` for the options. `table` is None for random grids."""

    image_px: int
    crop_px: int
    table: BoxTable | None
    rules: CropRules
    scales: tuple[int, ...]
    background: str
    max_pixels: int | None

    def __call__(
        self, samples: Sequence[RawSample], draw: SampleRandom
    ) -> tuple[CropBatch | None, list[BrokenSample]]:
        image_px = self.image_px
        if self.scales:
            image_px = self.scales[
                int(draw.rng(f"step {draw.step}", "scale").random() * len(self.scales))
            ]
        images, views, faults = _views(
            samples, image_px, lambda sample, canvas: self._view(sample, draw, canvas)
        )
        if not views:
            return None, faults
        crops = torch.cat([view.beside for view in views])
        return CropBatch(
            images, [view.boxes for view in views], crops, [view.key for view in views]
        ), faults

    def _view(self, sample: RawSample, draw: SampleRandom, canvas: Tensor) -> _View:
        image = open_image(sample.image, sample.name, max_pixels=self.max_pixels)
        size = image.height, image.width
        boxes, windows, warning = self._regions(sample, draw, image)
        enough = enough_pixels(size, windows, image_px=canvas.shape[-1], crop_px=self.crop_px)
        colour = background_colour(sample, draw, self.background)
        picture = decode_rgb(image, at_least=enough, background=colour, name=sample.name)
        down, across = picture.shape[1] / size[0], picture.shape[2] / size[1]
        scaled = [
            (left * across, top * down, right * across, bottom * down)
            for left, top, right, bottom in windows
        ]
        crops = cut_crops(picture, scaled, self.crop_px)
        T.letterbox_into(picture, canvas)
        return _View(boxes, crops, sample.key, warning)

    def _regions(
        self, sample: RawSample, draw: SampleRandom, image: Image.Image
    ) -> tuple[Tensor, list[Window], SampleWarning | None]:
        """Return boxes XYXY in [0, 1] of the padded square, crop windows XYXY in pixels, and a
        warning about the image's frame."""
        size = image.height, image.width
        rng = draw.rng(sample.name, "regions")
        if self.table is None:
            cells = draw_cells(rng, self.rules.max_split, self.rules.max_cells) * _extent(size)
            return cells / max(size), [tuple(cell) for cell in cells.tolist()], None
        boxes, _, warning = self.table.of_image(sample, image)
        boxes = boxes[draw_order(rng, len(boxes))[: self.rules.max_cells]]
        windows = [crop_window(box, size, self.rules.context) for box in boxes.tolist()]
        return padded_boxes(boxes, size), windows, warning


@dataclass(frozen=True)
class BoxBuilder:
    """Makes `BoxBatch`es: see `BoxLoader` for the options."""

    image_px: int
    table: BoxTable
    max_boxes: int
    background: str
    max_pixels: int | None

    def __call__(
        self, samples: Sequence[RawSample], draw: SampleRandom
    ) -> tuple[BoxBatch | None, list[BrokenSample]]:
        images, views, faults = _views(
            samples, self.image_px, lambda sample, canvas: self._view(sample, draw, canvas)
        )
        if not views:
            return None, faults
        labels = torch.cat([view.beside for view in views])
        return BoxBatch(
            images, [view.boxes for view in views], labels, [view.key for view in views]
        ), faults

    def _view(self, sample: RawSample, draw: SampleRandom, canvas: Tensor) -> _View:
        image = open_image(sample.image, sample.name, max_pixels=self.max_pixels)
        size = image.height, image.width
        boxes, labels, warning = self.table.of_image(sample, image)
        if len(boxes) > self.max_boxes:
            chosen = sorted(
                draw_order(draw.rng(sample.name, "regions"), len(boxes))[: self.max_boxes]
            )
            boxes, labels = boxes[chosen], labels[chosen]
        enough = enough_pixels(size, [], image_px=self.image_px, crop_px=0)
        colour = background_colour(sample, draw, self.background)
        picture = decode_rgb(image, at_least=enough, background=colour, name=sample.name)
        T.letterbox_into(picture, canvas)
        return _View(padded_boxes(boxes, size), labels, sample.key, warning)


def _extent(size: tuple[int, int]) -> Tensor:
    height, width = size
    return torch.tensor([width, height, width, height], dtype=torch.float32)


def _views(
    samples: Sequence[RawSample], image_px: int, view: Callable[[RawSample, Tensor], _View]
) -> tuple[Tensor, list[_View], list[BrokenSample]]:
    """The images (B, 3, S, S) that `view` filled, channels-last in memory, its results, and the
    faults. `view` takes a sample and the square for its image.
    """
    images = torch.empty(len(samples), image_px, image_px, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    views: list[_View] = []
    faults: list[BrokenSample] = []
    for sample in samples:
        try:
            views.append(view(sample, images[len(views)]))
        except BrokenSample as fault:
            faults.append(fault)

    faults += [view.warning for view in views if view.warning is not None]
    return images[: len(views)], views, faults
