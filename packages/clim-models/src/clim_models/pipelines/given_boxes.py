"""Boxes that come with pictures: checked, and in the units of the picture or of the network."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clim_models.pipelines.reading import ReadPicture
from clim_models.pipelines.region import Box


def boxes_of_window(given: Iterator[Any], window: Sequence[ReadPicture]) -> list[Tensor]:
    """Take the boxes of the pictures of a window, checked: (n, 4) float32 each.

    Those of a picture that could not be read are taken and not looked at.

    Raises:
        ValueError: too few, or boxes that do not fit.
    """
    found = []
    for picture in window:
        try:
            boxes = next(given)
        except StopIteration:
            raise ValueError(
                f"no boxes for {picture.name}: pass a list with (n, 4) boxes of each picture"
            ) from None
        found.append(torch.zeros(0, 4) if picture.error else _checked_boxes(boxes, picture))
    return found


def _checked_boxes(boxes: Any, picture: ReadPicture) -> Tensor:
    """Return boxes as a tensor if they are XYXY in pixels of the picture.

    Raises:
        ValueError: another shape, an empty or unordered box, or one outside the picture.
    """
    try:
        table = torch.as_tensor(np.asarray(boxes, dtype=np.float32))
    except (TypeError, ValueError):
        raise ValueError(
            f"boxes of {picture.name} are {str(boxes)[:60]}: pass (n, 4) numbers x0, y0, x1, y1"
        ) from None
    if table.numel() == 0:
        return table.reshape(0, 4)
    if table.ndim != 2 or table.shape[1] != 4:
        raise ValueError(
            f"boxes of {picture.name} have shape {tuple(table.shape)}: pass (n, 4) rows x0, y0, "
            "x1, y1, and of several pictures one such list each"
        )
    height, width = picture.size
    sides = torch.tensor([width, height] * 2)
    ordered = bool((table[:, :2] < table[:, 2:]).all())
    # Annotations round to pixels.
    inside = bool(((table >= -1) & (table <= sides + 1)).all())
    if not ordered or not inside:
        raise ValueError(
            f"boxes of {picture.name} are no x0 < x1, y0 < y1 in pixels of its {width} x {height}: "
            "pass corners in pixels, not fractions or widths"
        )
    return torch.minimum(table.clamp(min=0), sides)


def sides_of(picture: ReadPicture) -> Tensor:
    """Return width, height, width, height of a picture: (4,)."""
    height, width = picture.size
    return torch.tensor([width, height, width, height], dtype=torch.float32)


def relative_boxes(boxes: Tensor, picture: ReadPicture) -> Tensor:
    """Turn boxes in pixels into boxes in [0, 1]."""
    return (boxes / sides_of(picture)).clamp(0, 1)


def corners(values: Sequence[float]) -> Box:
    """Return the four numbers of a box as a tuple."""
    x0, y0, x1, y1 = values
    return x0, y0, x1, y1
