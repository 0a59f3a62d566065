"""A region of a picture and its name."""

from dataclasses import dataclass, field

import numpy as np

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class RegionResult:
    """A region of a picture and its name.

    Attributes:
        label: what it is; None where a phrase under `not` of the vocabulary matches best.
        score: from 0 to 1; what it means, the pipeline says.
        box: x0, y0, x1, y1 in pixels of the upright picture.
        class_id: place of the label among the labels of the picture's result, -1 without one.
        mask: bool (height, width) of the upright picture, or None.
        cosine: similarity of region and label, where the pipeline computes one.
    """

    label: str | None
    score: float
    box: Box
    class_id: int = -1
    mask: np.ndarray | None = field(default=None, compare=False, repr=False)
    cosine: float | None = None
