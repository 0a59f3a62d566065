"""Targets and losses of a proposal network that finds the centres of boxes.

Letters: B images, L levels, P positions of all levels of an image, G annotated boxes of an image.
Positions of a batch are in the order image, level, row, column.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clim_models.detection.heads.losses import Divisor, own_rows

# Values of a target below it are 0.
FAINT = 1e-4
FAR = 1e8


@dataclass(frozen=True)
class HeatmapRules:
    """Targets and losses of centres.

    Attributes:
        strides: pixels per position of each level.
        ranges: half diagonals of the boxes that each level predicts; both ends belong to it.
        overlap: IoU with its box at which a shifted box still counts as a hit; sets the radius of
            the target around a centre.
        least_radius: in pixels.
        alpha, gamma, beta: of the focal loss; beta weakens negatives near a centre.
        weight: of both terms of the focal loss.
        ignore_above: negatives of a higher probability do not count: they may be objects without
            annotation.
        empty_images: whether images without boxes count as negatives everywhere. In the published
            runs they do not.
    """

    strides: tuple[float, ...] = (8, 16, 32, 64, 128)
    ranges: tuple[tuple[float, float], ...] = (
        (0, 80),
        (64, 160),
        (128, 320),
        (256, 640),
        (512, FAR),
    )
    overlap: float = 0.8
    least_radius: float = 4.0
    alpha: float = 0.25
    gamma: float = 2.0
    beta: float = 4.0
    weight: float = 0.5
    ignore_above: float = 0.85
    empty_images: bool = True

    def __post_init__(self) -> None:
        if len(self.strides) != len(self.ranges):
            raise ValueError(
                f"{len(self.strides)} strides and {len(self.ranges)} ranges; pass one of each per "
                "level"
            )


@dataclass(frozen=True)
class Grid:
    """Positions of a pyramid.

    Attributes:
        centres: (P, 2), x and y of the middle of each cell in pixels.
        strides: (P,).
        levels: (P,) int64.
    """

    centres: Tensor
    strides: Tensor
    levels: Tensor


@dataclass(frozen=True)
class HeatmapTargets:
    """The targets of the network for an image.

    Attributes:
        heat: (P,) from 0 to 1; ones for an image without boxes that does not count.
        positive: (P,) int64, number of boxes of which a position is the centre.
        distances: (P, 4), left, top, right, bottom in strides.
        has_box: bool (P,), positions that predict distances.
    """

    heat: Tensor
    positive: Tensor
    distances: Tensor
    has_box: Tensor


def lay_grid(
    sizes: Sequence[tuple[int, int]], strides: Sequence[float], device: torch.device
) -> Grid:
    """Lay positions over the levels of a pyramid: rows and columns of each level."""
    centres, steps, levels = [], [], []
    for level, ((rows, columns), stride) in enumerate(zip(sizes, strides, strict=True)):
        y = (torch.arange(rows, device=device) + 0.5) * stride
        x = (torch.arange(columns, device=device) + 0.5) * stride
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        centres.append(torch.stack([grid_x.flatten(), grid_y.flatten()], 1))
        steps.append(torch.full((rows * columns,), float(stride), device=device))
        levels.append(torch.full((rows * columns,), level, device=device))
    return Grid(torch.cat(centres), torch.cat(steps), torch.cat(levels))


def levels_of(boxes: Tensor, ranges: Sequence[tuple[float, float]]) -> Tensor:
    """Tell which levels predict each box, by half its diagonal: (G, 4) -> bool (G, L)."""
    half = (boxes[:, 2:] - boxes[:, :2]).norm(dim=1, keepdim=True) / 2
    low, high = torch.tensor(ranges, dtype=torch.float32).to(boxes, non_blocking=True).T
    return (half >= low) & (half <= high)


@torch.no_grad()
def heatmap_targets(grid: Grid, boxes: Tensor, rules: HeatmapRules) -> HeatmapTargets:
    """Compute the targets of one image.

    Args:
        grid: of `lay_grid`.
        boxes: (G, 4) XYXY in pixels of the network input; G may be 0.
        rules: see `HeatmapRules`.

    Source: CenterNet2, arXiv 2103.07461, section 5.1.
    """
    count = len(grid.centres)
    if not len(boxes):
        heat = boxes.new_full((count,), 0.0 if rules.empty_images else 1.0)
        nothing = torch.zeros(count, dtype=torch.int64, device=boxes.device)
        return HeatmapTargets(heat, nothing, boxes.new_zeros(count, 4), nothing.bool())

    strides = grid.strides[:, None]
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2  # (G, 2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)

    # The cell that holds the middle of each box, on every level.
    cells = ((middles / strides[..., None]).floor() + 0.5) * strides[..., None]  # (P, G, 2)
    offset = grid.centres[:, None] - cells
    is_centre = (offset == 0).all(-1)  # (P, G)
    near = (offset.abs() <= strides[..., None]).all(-1)

    delta = (1 - rules.overlap) / (1 + rules.overlap)
    radius = (delta**2 * 2 * areas).clamp(min=rules.least_radius**2)
    distance = (grid.centres[:, None] - middles).square().sum(-1)
    weighted = distance.masked_fill(is_centre, 0) / radius  # (P, G)
    heat = (-weighted.amin(1)).exp()
    heat = torch.where(heat < FAINT, 0.0, heat)

    right_level = levels_of(boxes, rules.ranges)[:, grid.levels].T  # (P, G)
    sides = torch.cat(
        [grid.centres[:, None] - boxes[:, :2], boxes[:, 2:] - grid.centres[:, None]], -1
    )  # (P, G, 4)
    allowed = (sides.amin(-1) > 0) & near & right_level
    least, owner = weighted.masked_fill(~allowed, FAR).min(1)
    chosen = sides[torch.arange(count, device=boxes.device), owner]
    return HeatmapTargets(heat, (is_centre & right_level).sum(1), chosen / strides, least < FAR)


def heatmap_losses(
    logits: Tensor,
    distances: Tensor,
    targets: Sequence[HeatmapTargets],
    rules: HeatmapRules,
    *,
    divisor: Divisor = own_rows,
) -> dict[str, Tensor]:
    """Compute the losses of a batch.

    Args:
        logits: (B, P).
        distances: (B, P, 4) in strides, at least 0.
        targets: of each image.
        rules: see `HeatmapRules`.
        divisor: gives the divisor of sums, from the number of centres, and of positions with a box.

    Returns:
        `rpn_loss_cls_pos`, `rpn_loss_cls_neg` and `rpn_loss_bbox`.

    Source: focal loss of CornerNet, arXiv 1808.01244, and GIoU, arXiv 1902.09630.
    """
    heat = torch.stack([target.heat for target in targets])
    positive = torch.stack([target.positive for target in targets])
    wanted = torch.stack([target.distances for target in targets])
    has_box = torch.stack([target.has_box for target in targets])

    p = logits.float().sigmoid().clamp(FAINT, 1 - FAINT)
    count = divisor(positive.sum())
    hits = (1 - p) ** rules.gamma * p.log() * positive
    misses = (1 - heat) ** rules.beta * p**rules.gamma * (1 - p).log() * (p < rules.ignore_above)
    overlap = distance_loss(distances.float(), wanted) * has_box
    return {
        "rpn_loss_cls_pos": -rules.weight * rules.alpha * hits.sum() / count,
        "rpn_loss_cls_neg": -rules.weight * (1 - rules.alpha) * misses.sum() / count,
        "rpn_loss_bbox": overlap.sum() / divisor(has_box.sum()),
    }


def distance_loss(distances: Tensor, targets: Tensor) -> Tensor:
    """Compute 1 - GIoU of boxes around the same point.

    Intersection and union are one larger in the IoU, which keeps it defined for empty boxes.

    Args:
        distances, targets: (..., 4) as left, top, right, bottom.

    Returns:
        (...), from 0 to 2.
    """
    own, other = _area(distances), _area(targets)
    shared = _area(torch.minimum(distances, targets))
    union = own + other - shared
    around = _area(torch.maximum(distances, targets))
    enclosed = around.clamp(min=torch.finfo(around.dtype).eps)
    giou = (shared + 1) / (union + 1) - (around - union) / enclosed
    return 1 - giou


def _area(distances: Tensor) -> Tensor:
    return (distances[..., 0] + distances[..., 2]) * (distances[..., 1] + distances[..., 3])
