"""One image with its labelled regions, at the sizes of a model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clim_data.faults import BrokenSample
from clim_data.pixels import transforms as T
from clim_data.pixels.crops import crop_window, cut_crops
from clim_data.pixels.decode import pixels
from clim_data.pixels.masks import masks_to_grid
from clim_data.readers.region_options import RegionView


@dataclass(frozen=True)
class RegionSample:
    """One image and its n usable regions.

    image: uint8 (3, S, S), letterboxed, zeros at the right and the bottom.
    boxes: float32 (n, 4), XYXY in [0, 1] of the padded square.
    labels: int64 (n,).
    areas: float32 (n,), width * height of the box in original pixels.
    is_thing: bool (n,).
    masks: uint8 (n, h, w) on the patch grid, None when they were not asked for.
    crops: uint8 (n, 3, c, c) or None.
    fault: the reason if the image could not be read; it is then black and n = 0.
    annotated: number of regions in the annotations of the image.
    left_out: the skipped regions with reasons; empty if the image could not be read. A region with
        a `SampleWarning` is not skipped.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    areas: Tensor
    is_thing: Tensor
    masks: Tensor | None
    crops: Tensor | None
    image_id: int
    fault: BrokenSample | None = None
    annotated: int = 0
    left_out: tuple[BrokenSample, ...] = ()

    @property
    def error(self) -> str:
        """The text of `fault`, "" without one."""
        return str(self.fault) if self.fault is not None else ""


@dataclass(frozen=True)
class Region:
    """One region in the frame of its image: box XYXY in pixels, label, thing or stuff, mask (H, W)
    bool or None."""

    box: tuple[float, float, float, float]
    label: int
    is_thing: bool
    mask: np.ndarray | None


def make_region_sample(
    image: Image.Image,
    regions: Sequence[Region],
    view: RegionView,
    *,
    image_id: int,
    masks: bool = True,
) -> RegionSample:
    """Bring one RGB image and its regions to the model's sizes; boxes and masks are in the pixels
    of `image`."""
    size = image.height, image.width
    picture = image if view.resize == "pil" else pixels(image)
    grid = view.image_px // view.stride
    boxes = torch.tensor([r.box for r in regions], dtype=torch.float64).reshape(len(regions), 4)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    grids = None
    if masks:
        found = [r.mask for r in regions if r.mask is not None]
        stacked = np.stack(found) if found else np.zeros((0, *size), dtype=bool)
        grids = masks_to_grid(torch.from_numpy(stacked), grid, antialias=view.antialias)
    crops = None
    if view.crop_px is not None:
        windows = [crop_window(r.box, size, view.context if r.is_thing else 1.0) for r in regions]
        crops = cut_crops(picture, windows, view.crop_px)
    return RegionSample(
        image=T.letterbox(picture, view.image_px),
        boxes=(boxes / max(size)).float(),
        labels=torch.tensor([r.label for r in regions], dtype=torch.int64),
        areas=areas.float(),
        is_thing=torch.tensor([r.is_thing for r in regions], dtype=torch.bool),
        masks=grids,
        crops=crops,
        image_id=image_id,
    )


def empty_region_sample(
    view: RegionView, image_id: int, fault: BrokenSample, *, masks: bool = True
) -> RegionSample:
    """Make a black image without regions, in place of an unreadable one; it adds nothing to any
    metric."""
    black = Image.new("RGB", (view.image_px, view.image_px))
    sample = make_region_sample(black, [], view, image_id=image_id, masks=masks)
    return replace(sample, fault=fault)
