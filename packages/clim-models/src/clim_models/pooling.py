"""Pool a feature map inside boxes and masks: pure functions over all regions of all images.

Letters: B images, C channels, h w positions of the map, n_i regions of image i, R = sum of n_i,
n = the largest n_i, Q regions of an image with padding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import roi_align

# Rounding may put boxes this far outside the image. Anything further is a mistake of units.
BOX_SLACK = 1e-3

Kind = TypeVar("Kind", bound=str)


def unit_length(features: Tensor, dim: int = -1) -> Tensor:
    """Scale features to unit length along `dim`; zeros stay zeros in every dtype."""
    # The usual lower limit of a length, 1e-12, is 0 in float16, and 0 / 0 is NaN.
    least = max(1e-12, torch.finfo(features.dtype).tiny)
    return F.normalize(features, dim=dim, eps=least)


def check_boxes(boxes: Sequence[Tensor], batch_size: int) -> None:
    """Reject boxes that are not one (n_i, 4) XYXY tensor per image in [0, 1].

    Values are checked only on the CPU, where it costs nothing; a GPU would have to wait.

    Raises:
        ValueError: wrong number of tensors, wrong shape, coordinates outside [0, 1], or a right or
            bottom edge before the other one.
    """
    if isinstance(boxes, Tensor) or len(boxes) != batch_size:
        got = (
            f"a tensor of shape {tuple(boxes.shape)}"
            if isinstance(boxes, Tensor)
            else f"{len(boxes)} entries"
        )
        raise ValueError(
            f"boxes={got} for {batch_size} images; pass a list with one (n_i, 4) tensor per image"
        )
    for i, b in enumerate(boxes):
        if b.ndim != 2 or b.shape[1] != 4:
            raise ValueError(
                f"boxes[{i}] has shape {tuple(b.shape)}; pass (n, 4) rows x0, y0, x1, y1"
            )
        # Subclasses may have no values: fake tensors stand for shapes, in estimates and exports.
        if b.device.type == "cpu" and b.numel() and type(b) in (Tensor, nn.Parameter):
            low, high = b.min().item(), b.max().item()
            if low < -BOX_SLACK or high > 1 + BOX_SLACK or low != low:
                raise ValueError(
                    f"boxes[{i}] has coordinates from {low:.4g} to {high:.4g}, outside [0, 1]; "
                    "divide pixel boxes by the width and height of the image that is passed"
                )
            if float((b[:, 2:] - b[:, :2]).min()) < -BOX_SLACK:
                row = int((b[:, 2:] - b[:, :2]).amin(1).argmin())
                raise ValueError(
                    f"boxes[{i}][{row}] is {b[row].tolist()}, which ends before it begins; pass "
                    "x0, y0, x1, y1, not x, y, width, height"
                )


def check_masks(masks: Sequence[Tensor], batch_size: int, grid: tuple[int, int]) -> None:
    """Reject masks that are not one (n_i, h, w) tensor per image on the patch grid.

    Raises:
        ValueError: wrong number of tensors or a wrong grid.
    """
    if isinstance(masks, Tensor) or len(masks) != batch_size:
        got = (
            f"a tensor of shape {tuple(masks.shape)}"
            if isinstance(masks, Tensor)
            else f"{len(masks)} entries"
        )
        raise ValueError(
            f"masks={got} for {batch_size} images; pass a list with one (n_i, h, w) tensor per "
            "image"
        )
    for i, m in enumerate(masks):
        if m.ndim != 3 or tuple(m.shape[1:]) != tuple(grid):
            raise ValueError(
                f"masks[{i}] has shape {tuple(m.shape)}, the feature map has {grid[0]}x{grid[1]} "
                f"positions; resize the masks to (n, {grid[0]}, {grid[1]}) "
                "(model.grid_size(H, W) gives the grid)"
            )


def pool_boxes(feature_map: Tensor, boxes: Sequence[Tensor]) -> Tensor:
    """Average a feature map inside boxes by bilinear sampling.

    This is RoIAlign to 1x1, aligned, with adaptive sampling.

    Args:
        feature_map: (B, C, h, w).
        boxes: one (n_i, 4) XYXY tensor per image, normalised to [0, 1] of the image.

    Returns:
        (R, C) in the order of the images; a box without area gives zeros.

    Raises:
        ValueError: see :func:`check_boxes`.

    Source: RoIAlign, arXiv 1703.06870; the papers' readout (arXiv 2310.01403, 2312.11376).
    """
    return align_boxes(feature_map, boxes, 1).flatten(1)


def align_boxes(
    feature_map: Tensor, boxes: Sequence[Tensor], size: int | tuple[int, int]
) -> Tensor:
    """Sample normalised boxes by RoIAlign to `size` bins: (B, C, h, w) -> (R, C, size, size)."""
    check_boxes(boxes, feature_map.shape[0])

    # The CPU kernel has no bfloat16, and sums of half floats lose digits: pool in float32.
    map32 = feature_map.float()

    # Scaled on their own device: the copy is then of a tensor that nobody else changes, so nobody
    # has to wait for it.
    grid = (feature_map.shape[-2], feature_map.shape[-1])
    rois = [_on_grid(b, grid).to(feature_map.device, non_blocking=True) for b in boxes]
    return roi_align(map32, rois, size, spatial_scale=1.0, sampling_ratio=-1, aligned=True).to(
        feature_map.dtype
    )


def pool_masks(feature_map: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """Average a feature map inside masks, all regions in one matrix product.

    Args:
        feature_map: (B, C, h, w).
        masks: one (n_i, h, w) tensor per image (bool, 0/1 or weights) on the map's grid.

    Returns:
        (R, C); an empty mask gives zeros.

    Raises:
        ValueError: see :func:`check_masks`.
    """
    check_masks(masks, feature_map.shape[0], (feature_map.shape[-2], feature_map.shape[-1]))
    counts = [len(m) for m in masks]
    weights = pad_sequence([m.flatten(1).float() for m in masks], batch_first=True)
    weights = weights.to(feature_map.device, non_blocking=True)
    weights = weights / (weights.sum(-1, keepdim=True) + 1e-12)  # (B, n, hw)
    means = weights @ feature_map.flatten(2).float().transpose(1, 2)  # (B, n, C)
    return drop_padding(means, counts).to(feature_map.dtype)


def drop_padding(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Keep the first `counts[i]` rows of each image: (B, n, C) -> (R, C)."""
    # Slices, because a list of indices would have to be copied to the device first.
    return torch.cat([row[:count] for row, count in zip(rows.unbind(0), counts, strict=True)])


def _on_grid(boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """Scale boxes (n, 4) from [0, 1] to float32 positions of a grid (h, w), on their device."""
    h, w = grid
    x0, y0, x1, y1 = boxes.float().unbind(-1)
    return torch.stack([x0 * w, y0 * h, x1 * w, y1 * h], -1)


@dataclass(frozen=True)
class PackedRegions(Generic[Kind]):
    """Regions of several kinds next to each other, padded to one batch.

    Attributes:
        allowed: bool (B, Q, h*w), the positions of each region. Padding sees all of them.
        counts: for each kind the number of regions of each image.
        columns: for each kind its range of Q.
    """

    allowed: Tensor
    counts: dict[Kind, list[int]]
    columns: dict[Kind, tuple[int, int]]

    def split(self, features: Tensor) -> dict[Kind, Tensor]:
        """Separate the kinds and drop the padding: (B, Q, C) -> (R, C) of each kind."""
        found = {}
        for kind, (start, stop) in self.columns.items():
            found[kind] = drop_padding(features[:, start:stop], self.counts[kind])
        return found


def pack_regions(rows: Mapping[Kind, list[Tensor]]) -> PackedRegions[Kind]:
    """Pad bool (n_i, h*w) masks of each kind to one batch.

    Padding sees every position, so no query is empty.
    """
    allowed: list[Tensor] = []
    counts: dict[Kind, list[int]] = {}
    columns: dict[Kind, tuple[int, int]] = {}
    start = 0
    for kind, masks in rows.items():
        padded = pad_sequence(masks, batch_first=True, padding_value=True)  # (B, max n, h*w)
        allowed.append(padded)
        counts[kind] = [len(mask) for mask in masks]
        columns[kind] = (start, start + padded.shape[1])
        start += padded.shape[1]

    return PackedRegions(torch.cat(allowed, 1), counts, columns)


def box_patch_masks(boxes: Tensor, grid: tuple[int, int], rounding: str = "nearest") -> Tensor:
    """Find the patches of each box: (n, 4) XYXY in [0, 1] -> bool (n, h, w).

    Args:
        rounding: "nearest" rounds the edges and gives each box at least one patch. "truncate"
            rounds both edges down, as the original masked-attention readout did; thin boxes may
            then have no patch.
    """
    h, w = grid
    scaled = _on_grid(boxes, grid)
    if rounding == "truncate":
        x0, y0, x1, y1 = scaled.long().unbind(-1)
    else:
        left, top, right, bottom = scaled.unbind(-1)
        # The patch under the centre always belongs to the box, even if both edges round to one.
        centre_x = ((left + right) / 2).floor().clamp(0, w - 1)
        centre_y = ((top + bottom) / 2).floor().clamp(0, h - 1)
        x0 = torch.minimum(left.round().clamp(0, w - 1), centre_x)
        y0 = torch.minimum(top.round().clamp(0, h - 1), centre_y)
        x1 = torch.maximum(right.round(), centre_x + 1)
        y1 = torch.maximum(bottom.round(), centre_y + 1)

    columns = torch.arange(w, device=boxes.device)
    rows = torch.arange(h, device=boxes.device)
    inside_x = (columns >= x0[:, None]) & (columns < x1[:, None])  # (n, w)
    inside_y = (rows >= y0[:, None]) & (rows < y1[:, None])  # (n, h)
    return inside_y[:, :, None] & inside_x[:, None, :]
