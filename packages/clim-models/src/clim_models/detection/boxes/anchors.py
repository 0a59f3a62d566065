"""Anchors of a pyramid: boxes of three shapes at every position of every level."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AnchorRules:
    """Shapes of anchors.

    Attributes:
        strides: pixels per position of each level, finest first.
        scales: sides of a square anchor, in strides.
        ratios: height / width of each shape.

    Raises:
        ValueError: no level, no scale, no ratio, or a number that is not positive.
    """

    strides: tuple[float, ...]
    scales: tuple[float, ...] = (8.0,)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)

    def __post_init__(self) -> None:
        numbers = (*self.strides, *self.scales, *self.ratios)
        some = self.strides and self.scales and self.ratios
        if not some or min(numbers) <= 0:
            raise ValueError(
                f"strides={self.strides}, scales={self.scales}, ratios={self.ratios}; "
                "pass at least one of each, all above 0"
            )

    @property
    def per_position(self) -> int:
        """Number of anchors at each position."""
        return len(self.scales) * len(self.ratios)


def anchor_boxes(
    grids: Sequence[tuple[int, int]], rules: AnchorRules, device: torch.device
) -> list[Tensor]:
    """Lay anchors over the grids of a pyramid.

    The anchors of position (row, column) are centred on (column * stride, row * stride), the upper
    left corner of the cell. Sides are stride * scale / sqrt(ratio) wide and
    stride * scale * sqrt(ratio) high; they are not rounded.

    Args:
        grids: rows and columns of each level.
        rules: one stride for each level.

    Returns:
        For each level (rows * columns * scales * ratios, 4) float32, in the order row, column,
        scale, ratio.

    Raises:
        ValueError: another number of levels.
    """
    if len(grids) != len(rules.strides):
        raise ValueError(
            f"{len(grids)} levels for {len(rules.strides)} strides; pass one stride per level"
        )
    found = []
    for (rows, columns), stride in zip(grids, rules.strides, strict=True):
        # On the CPU: numbers that are made on a GPU make it wait.
        root = torch.tensor(rules.ratios).sqrt()
        scales = torch.tensor(rules.scales)[:, None]
        width = (stride * (1 / root) * scales).flatten()  # (A,)
        height = (stride * root * scales).flatten()
        shapes = torch.stack([-width, -height, width, height], -1) * 0.5  # (A, 4)
        shapes = shapes.to(device, non_blocking=True)

        x = torch.arange(columns, device=device, dtype=torch.float32) * stride
        y = torch.arange(rows, device=device, dtype=torch.float32) * stride
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        centres = torch.stack([grid_x, grid_y, grid_x, grid_y], -1)  # (rows, columns, 4)
        found.append((centres[:, :, None] + shapes).reshape(-1, 4))
    return found
