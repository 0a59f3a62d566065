"""The masks of many boxes in little memory: COCO's run lengths as text, one array for all."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from clim_data.pixels.mask_windows import MaskWindow
from clim_data.pixels.segmentations import mask_window


@dataclass(frozen=True)
class MaskTexts:
    """Masks of N boxes.

    text: uint8 (bytes,), of all masks (see `compress_segmentation`). spans: int64 (N, 2), first
    byte of each mask and the one behind its last.
    """

    text: np.ndarray
    spans: np.ndarray

    def take(self, rows: np.ndarray) -> Self:
        """Return the masks of some boxes, in the order of `rows`; the text is shared."""
        return replace(self, spans=self.spans[rows])

    def windows(self, rows: slice, height: int) -> list[MaskWindow]:
        """Decode the masks of some boxes of an image with `height` rows."""
        found = []
        for start, stop in self.spans[rows].tolist():
            found.append(MaskWindow(*mask_window(self.text[start:stop].tobytes(), height)))
        return found
