"""Regions of images that have no boxes: tiles of a mosaic, proposals in them, and groups of tiles.

Letters: T tiles of an image (1 for a plain image), N proposals, G groups, L positions of a group.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NO_TILE = -1


@dataclass(frozen=True)
class TileRules:
    """Rules for the proposals that may represent a tile.

    Attributes:
        overlap: a proposal has more than this part of its own area in the tile.
        best: at most this number per tile, by score.

    Raises:
        ValueError: a number out of range.
    """

    overlap: float = 0.3
    best: int = 128

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1 or self.best < 1:
            raise ValueError(
                f"overlap={self.overlap}, best={self.best}; "
                "pass an overlap from 0 to below 1 and a number of at least 1"
            )


def tiles_of_boxes(boxes: Tensor, tiles: Tensor, overlap: float) -> Tensor:
    """Find the tile that holds the largest part of each box.

    Args:
        boxes: (N, 4) XYXY in pixels.
        tiles: (T, 4).
        overlap: a box belongs to a tile if more than this part of its area lies there.

    Returns:
        (N,) int64, `NO_TILE` for boxes without tile.
    """
    low = torch.maximum(boxes[:, None, :2], tiles[:, :2])
    high = torch.minimum(boxes[:, None, 2:], tiles[:, 2:])
    inside = (high - low).clamp(min=0).prod(-1)  # (N, T)
    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1, keepdim=True)

    # 0 / 0 of a box without area is no overlap.
    part, tile = (inside / area).nan_to_num(0.0).max(1)
    return torch.where(part > overlap, tile, NO_TILE)


@torch.no_grad()
def largest_proposals(
    tiles: Tensor, proposals: Tensor, scores: Tensor | None, rules: TileRules
) -> Tensor:
    """Choose the largest proposal of each tile, clamped to the tile.

    Args:
        tiles: (T, 4) XYXY in pixels.
        proposals: (N, 4).
        scores: (N,); None takes all proposals of a tile, and not only the best.
        rules: which proposals belong to a tile.

    Returns:
        (T, 4). A tile without proposal stands for itself.

    Source: the max-size loss of Detic, arXiv 2201.02605, section 3.2.
    """
    if not len(proposals):
        return tiles.clone()
    if scores is not None:
        proposals = proposals[scores.argsort(descending=True, stable=True)]
    owners = tiles_of_boxes(proposals, tiles, rules.overlap)
    mine = owners[:, None] == torch.arange(len(tiles), device=tiles.device)  # (N, T)
    if scores is not None:
        mine = mine & (mine.cumsum(0) <= rules.best)

    low = torch.maximum(proposals[:, None, :2], tiles[:, :2])
    high = torch.minimum(proposals[:, None, 2:], tiles[:, 2:])
    clamped = torch.cat([low, high], -1)  # (N, T, 4)
    area = (high - low).clamp(min=0).prod(-1).masked_fill(~mine, -1.0)

    size, row = area.max(0)
    found = clamped[row, torch.arange(len(tiles), device=tiles.device)]
    return torch.where(size[:, None] >= 0, found, tiles)


def group_rectangles(side: int) -> tuple[Tensor, Tensor]:
    """List the rectangles of more than one tile, and how likely a draw gives each.

    First and last row are two draws from all rows, sorted, and columns likewise; a draw of one
    tile is repeated.

    Args:
        side: rows, and columns, of the mosaic.

    Returns:
        (R, 4) int64, first and last row, first and last column, and (R,) probabilities.
    """
    pairs = torch.triu_indices(side, side).T  # first <= last
    likely = torch.where(pairs[:, 0] == pairs[:, 1], 1.0, 2.0) / side**2
    count = len(pairs)
    rows = pairs.repeat_interleave(count, 0)
    columns = pairs.repeat(count, 1)
    rectangles = torch.cat([rows, columns], 1)
    probabilities = likely.repeat_interleave(count) * likely.repeat(count)

    several = (rectangles[:, 0] != rectangles[:, 1]) | (rectangles[:, 2] != rectangles[:, 3])
    return rectangles[several], probabilities[several] / probabilities[several].sum()


def draw_groups(side: int, number: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw different rectangles of several tiles.

    Args:
        side: rows, and columns, of the mosaic.
        number: G.
        generator: None is torch's own.

    Returns:
        bool (G, side * side), the tiles of each group, row by row.

    Raises:
        ValueError: a mosaic that has fewer rectangles.

    Source: CLIM, arXiv 2312.11376, section 3.3.
    """
    if number == 0:
        return torch.zeros(0, side * side, dtype=torch.bool)
    rectangles, probabilities = group_rectangles(side)
    if number > len(rectangles):
        raise ValueError(
            f"{number} groups of a {side} x {side} mosaic, which has {len(rectangles)} "
            "rectangles; ask for fewer groups, or use larger mosaics"
        )
    # Drawing without repetition: draw with repetition, and drop the repetitions.
    chosen = torch.multinomial(probabilities, number, generator=generator)
    first_row, last_row, first_column, last_column = rectangles[chosen][:, :, None].unbind(1)
    place = torch.arange(side)
    rows = (place >= first_row) & (place <= last_row)  # (G, side)
    columns = (place >= first_column) & (place <= last_column)
    return (rows[:, :, None] & columns[:, None]).flatten(1)


def with_group_boxes(boxes: Tensor, groups: Tensor) -> Tensor:
    """Append the smallest box around the boxes of each group.

    Args:
        boxes: (T, 4), one per tile.
        groups: bool (G, T).

    Returns:
        (T + G, 4).
    """
    low = torch.where(groups[..., None], boxes[:, :2], torch.inf).amin(1)
    high = torch.where(groups[..., None], boxes[:, 2:], -torch.inf).amax(1)
    return torch.cat([boxes, torch.cat([low, high], 1)])


def with_tiles(groups: Tensor) -> Tensor:
    """Put one row per tile before the groups: bool (G, T) -> (T + G, T)."""
    own = torch.eye(groups.shape[1], dtype=torch.bool, device=groups.device)
    return torch.cat([own, groups])


def side_of(tiles: int) -> int:
    """Return the rows of a square mosaic.

    Raises:
        ValueError: a number of tiles that is not a square.
    """
    side = math.isqrt(tiles)
    if side * side != tiles or not tiles:
        raise ValueError(f"{tiles} tiles; a mosaic has 1, 4, 9 or 16 tiles: pass one box per tile")
    return side
