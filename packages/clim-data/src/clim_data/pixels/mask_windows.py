"""Masks as windows: all pixels outside are unset, so only the inside is stored.

A window moves through resizing and cropping without a bitmap of the whole image.
"""

from typing import NamedTuple

import numpy as np

from clim_data.pixels.boxes import box_of_mask


class MaskWindow(NamedTuple):
    """A part of a mask that holds all set pixels.

    left, top: its first column and row in the image. pixels: bool (h, w).
    """

    left: int
    top: int
    pixels: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """XYXY in pixels of the image."""
        height, width = self.pixels.shape
        return self.left, self.top, self.left + width, self.top + height


def window_of_mask(mask: np.ndarray, left: int = 0, top: int = 0) -> MaskWindow | None:
    """Return the smallest window of a mask (H, W); None where no pixel is set.

    Args:
        mask: bool, a part of an image.
        left, top: where in the image it begins.
    """
    box = box_of_mask(mask)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    return MaskWindow(left + x0, top + y0, mask[y0:y1, x0:x1])


def cut_window(window: MaskWindow, rows: np.ndarray, columns: np.ndarray) -> MaskWindow | None:
    """Return the part of a mask that a view shows; None if it is empty.

    Args:
        window: of the mask in its image.
        rows, columns: int64, rising: the row (column) of the image that each of the view shows.
    """
    left, top, right, bottom = window.box
    first, last = np.searchsorted(rows, (top, bottom)).tolist()
    start, stop = np.searchsorted(columns, (left, right)).tolist()
    seen = window.pixels[rows[first:last] - top][:, columns[start:stop] - left]
    return window_of_mask(seen, start, first)


def mirror_window(window: MaskWindow, width: int) -> MaskWindow:
    """Mirror a mask in an image that is `width` pixels wide."""
    return MaskWindow(width - window.box[2], window.top, window.pixels[:, ::-1])
