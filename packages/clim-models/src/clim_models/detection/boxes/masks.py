"""Masks that are stored inside their boxes only.

Letters: G boxes of an image, H W pixels of the network input.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BoxMasks:
    """Masks of the boxes of one image; outside of its box a mask is not set.

    Attributes:
        boxes: (G, 4) XYXY, whole numbers of pixels.
        pixels: bool, those inside the boxes, row by row and box after box.
        size: (H, W).

    Raises:
        ValueError: on a CPU, another number of pixels than the boxes have.
    """

    boxes: Tensor
    pixels: Tensor
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if self.boxes.device.type == "cpu" and int(self._areas().sum()) != len(self.pixels):
            raise ValueError(
                f"{len(self.pixels)} pixels of masks for boxes of {int(self._areas().sum())}: pass "
                "all pixels inside the boxes, which must be whole numbers"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(G, H, W), the shape of `dense`."""
        return (len(self.boxes), *self.size)

    def to(self, device: torch.device) -> "BoxMasks":
        """Copy everything to a device."""
        boxes = self.boxes.to(device, non_blocking=True)
        return BoxMasks(boxes, self.pixels.to(device, non_blocking=True), self.size)

    def dense(self) -> Tensor:
        """Paint the masks into bitmaps: bool (G, H, W)."""
        height, width = self.size
        boxes, areas = self.boxes.long(), self._areas()
        count = len(self.pixels)

        # Of each pixel: its box, and its place in it.
        numbers = torch.arange(len(boxes), device=boxes.device)
        owner = numbers.repeat_interleave(areas, output_size=count)
        place = torch.arange(count, device=boxes.device) - (areas.cumsum(0) - areas)[owner]
        columns = (boxes[:, 2] - boxes[:, 0])[owner].clamp(min=1)
        x = boxes[owner, 0] + place % columns
        y = boxes[owner, 1] + place // columns

        painted = torch.zeros(len(boxes), height, width, dtype=torch.bool, device=boxes.device)
        painted.view(-1)[(owner * height + y) * width + x] = self.pixels
        return painted

    def _areas(self) -> Tensor:
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        return sides.long().prod(1)
