"""Large-scale jitter, the augmentation of detectors: resize by a random ratio, crop, flip.

Everything random is drawn first, so that the rest is a pure function. Sizes are (height, width).
Boxes are XYXY in pixels. Source: arXiv 2012.07177, section 3.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clim_data.pixels.boxes import inside_window
from clim_data.pixels.mask_windows import MaskWindow, cut_window, mirror_window

RATIOS = (0.1, 2.0)
# Shorter boxes are dropped, in pixels after the crop.
SHORTEST_SIDE = 0.01


@dataclass(frozen=True)
class JitterDraw:
    """The random numbers of one view of a picture.

    Attributes:
        ratio: longest side after resizing, as a fraction of the side of the view.
        top, left: first row and column of the crop, as fractions of the removed length: 0 is the
            upper or left end, 1 the other.
        flip: whether the view is mirrored.
    """

    ratio: float = 1.0
    top: float = 0.0
    left: float = 0.0
    flip: bool = False

    @classmethod
    def of(cls, rng: random.Random, ratios: tuple[float, float] = RATIOS) -> "JitterDraw":
        """Draw a view: a ratio within `ratios`, crop anywhere, mirrored in half of the cases."""
        low, high = ratios
        ratio = low + (high - low) * rng.random()
        return cls(ratio, rng.random(), rng.random(), rng.random() < 0.5)


@dataclass(frozen=True)
class JitterView:
    """One view of a picture.

    Attributes:
        image: uint8 (3, S, S), zeros outside the window.
        window: (left, top, right, bottom) of the picture in the view.
        boxes: float32 (n, 4).
        masks: n windows of exactly these boxes, or None.
        rows: int64 (n,), which of the given boxes these are.
    """

    image: Tensor
    window: tuple[int, int, int, int]
    boxes: Tensor
    masks: list[MaskWindow] | None
    rows: Tensor


@dataclass(frozen=True)
class CutView:
    """A part of a resized picture, without padding.

    Attributes:
        image: uint8 (3, h, w).
        boxes: float32 (n, 4).
        masks: n windows of exactly these boxes, or None.
        rows: int64 (n,), which of the given boxes these are.
    """

    image: Tensor
    boxes: Tensor
    masks: list[MaskWindow] | None
    rows: Tensor


def jittered_size(size: tuple[int, int], side: int, ratio: float) -> tuple[int, int]:
    """Compute the size of a picture whose longest side becomes int(side * ratio).

    Sides are rounded half up and are at least 1.
    """
    longest = max(int(side * ratio), 1)
    factor = longest / max(size)
    height, width = (max(int(edge * factor + 0.5), 1) for edge in size)
    return height, width


def crop_place(size: tuple[int, int], side: int, draw: JitterDraw) -> tuple[int, int]:
    """Return the first row and column of the crop: whole numbers from 0 to the removed length."""
    spare_rows = max(size[0] - side, 0)
    spare_columns = max(size[1] - side, 0)
    return (
        min(int(draw.top * (spare_rows + 1)), spare_rows),
        min(int(draw.left * (spare_columns + 1)), spare_columns),
    )


def crop_of(size: tuple[int, int], side: int, draw: JitterDraw) -> tuple[slice, slice]:
    """Return rows and columns of the crop: at most `side` of each."""
    top, left = crop_place(size, side, draw)
    return slice(top, top + min(size[0], side)), slice(left, left + min(size[1], side))


def jitter(
    picture: Tensor,
    boxes: Tensor,
    draw: JitterDraw,
    side: int,
    *,
    masks: Sequence[MaskWindow] | None = None,
    flip_padding: bool = False,
    out: Tensor | None = None,
) -> JitterView:
    """Make one view of a picture: see `cut_view` for pixels, boxes and masks.

    Args:
        picture: uint8 RGB (3, height, width).
        boxes: (N, 4) in pixels of the picture.
        draw: the random numbers.
        side: S.
        masks: of the N boxes, or None.
        flip_padding: mirror the padded view, so that the padding of a mirrored view is at the left,
            as CLIM's detectors were trained. By default it is always at the right and the bottom.
        out: zeros, uint8 (3, S, S), that become the image, such as a row of a batch; None makes a
            new tensor.
    """
    new = jittered_size((picture.shape[1], picture.shape[2]), side, draw.ratio)
    crop = crop_of(new, side, draw)
    view = cut_view(picture, boxes, new, crop=crop, flip=draw.flip, masks=masks)

    height, width = view.image.shape[1:]
    left = side - width if draw.flip and flip_padding else 0
    window = (left, 0, left + width, height)
    image = picture.new_zeros(3, side, side) if out is None else out
    image[:, :height, left : left + width] = view.image

    cut = view.masks
    moved = view.boxes
    if left:
        moved = moved + moved.new_tensor([left, 0, left, 0])
        cut = None if cut is None else [mask._replace(left=mask.left + left) for mask in cut]
    return JitterView(image, window, moved, cut, view.rows)


def cut_view(
    picture: Tensor,
    boxes: Tensor,
    new: tuple[int, int],
    *,
    crop: tuple[slice, slice] | None = None,
    flip: bool = False,
    masks: Sequence[MaskWindow] | None = None,
) -> CutView:
    """Resize a picture, cut a window out of it, and mirror that.

    Pixels are resized bilinearly without antialiasing and rounded, masks by nearest neighbour.
    Boxes are clipped to the crop, and dropped if they are empty then. With masks, boxes become
    those around the cropped masks. A view without boxes is a view of background.

    Args:
        picture: uint8 RGB (3, height, width).
        boxes: (N, 4) in pixels of the picture.
        new: height and width after resizing.
        crop: rows and columns of the resized picture; None takes all.
        flip: whether the view is mirrored.
        masks: of the N boxes, or None.
    """
    size = (picture.shape[1], picture.shape[2])
    rows, columns = crop or (slice(0, new[0]), slice(0, new[1]))
    content = _resize_crop(picture, new, (rows, columns), flip=flip)
    # For a handful of numbers, operations of numpy are faster than those of torch.
    found, cut, here = _crop_boxes(boxes.numpy(), masks, size, new, (rows, columns))

    if flip:
        width = columns.stop - columns.start
        found = found[:, [2, 1, 0, 3]]
        found[:, ::2] = width - found[:, ::2]
        cut = None if cut is None else [mirror_window(mask, width) for mask in cut]
    return CutView(content, torch.from_numpy(found), cut, torch.from_numpy(here))


def resize_bilinear(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize pixels without antialiasing: uint8 (3, height, width) -> (3, *size), rounded."""
    if picture.shape[1:] == size:
        return picture
    # On bytes, not floats: a grey level off in places, and several times as fast.
    return F.interpolate(picture[None], size, mode="bilinear", align_corners=False)[0]


def _resize_crop(
    picture: Tensor, new: tuple[int, int], crop: tuple[slice, slice], *, flip: bool
) -> Tensor:
    """Resize a picture as `resize_bilinear`, without the pixels behind the crop, and mirror it.

    The resizer counts from the first row and column. A crop near the other end is therefore taken
    from the turned picture, and at most half of what is cut away is computed.
    """
    rows, columns = crop
    if (rows, columns) == (slice(0, new[0]), slice(0, new[1])):
        content = resize_bilinear(picture, new)
        return content.flip(-1) if flip else content

    turned = []
    sides: list[tuple[int, int]] = []
    for axis, part in ((1, rows), (2, columns)):
        before, after = part.start, new[axis - 1] - part.stop
        if after < before:
            turned.append(axis)
        sides.append((min(before, after), part.stop - part.start))

    source = picture.flip(turned) if turned else picture
    height, end_row = _pixels_to_resize(picture.shape[1], new[0], sum(sides[0]))
    width, end_column = _pixels_to_resize(picture.shape[2], new[1], sum(sides[1]))
    # With the factors of the whole picture: `interpolate` takes either factors or a size.
    content = torch.ops.aten.upsample_bilinear2d(
        source[None, :, :height, :width],
        (end_row, end_column),
        False,
        new[0] / picture.shape[1],
        new[1] / picture.shape[2],
    )[0]
    content = content[:, sides[0][0] : sum(sides[0]), sides[1][0] : sum(sides[1])]

    back = [1] if 1 in turned else []
    if (2 in turned) != flip:
        back.append(2)
    return content.flip(back) if back else content


def _pixels_to_resize(old: int, new: int, end: int) -> tuple[int, int]:
    """Return how many pixels of a side the first `end` resized ones need, and how many to make."""
    # The neighbour below the last place, and one for roundings.
    source = min(end * old // new + 2, old)
    # The resizer copies a side whose number of pixels stays the same, for any factor.
    return source, end + 1 if source == end and old != new else end


def _nearest(old: int, new: int) -> np.ndarray:
    """Return the row that each row of a resized mask shows: floor(row * old / new)."""
    # In the order of operations of OpenCV, whose roundings decide where rows meet exactly.
    step = 1.0 / (new / old)
    return np.minimum(np.floor(np.arange(new) * step).astype(np.int64), old - 1)


def _crop_boxes(
    boxes: np.ndarray,
    masks: Sequence[MaskWindow] | None,
    size: tuple[int, int],
    new: tuple[int, int],
    crop: tuple[slice, slice],
) -> tuple[np.ndarray, list[MaskWindow] | None, np.ndarray]:
    """Clip boxes and masks to the crop: boxes, masks, and the rows of the remaining ones."""
    rows, columns = crop
    scale = np.array([new[1] / size[1], new[0] / size[0]] * 2, dtype=np.float32)
    corner = np.array([columns.start, rows.start] * 2, dtype=np.float32)
    moved = boxes.astype(np.float32) * scale - corner
    moved = inside_window(moved, (rows.stop - rows.start, columns.stop - columns.start))

    shortest = SHORTEST_SIDE if masks is None else 0.0
    here = np.flatnonzero((moved[:, 2:] - moved[:, :2] > np.float32(shortest)).all(axis=1))
    if masks is None:
        return moved[here], None, here

    from_rows = _nearest(size[0], new[0])[rows]
    from_columns = _nearest(size[1], new[1])[columns]
    cut: list[MaskWindow] = []
    left: list[int] = []
    for row in here.tolist():
        mask = cut_window(masks[row], from_rows, from_columns)
        # A mask outside the crop has no box.
        if mask is not None:
            cut.append(mask)
            left.append(row)
    around = np.array([mask.box for mask in cut], dtype=np.float32).reshape(-1, 4)
    return around, cut, np.array(left, dtype=np.int64)
