"""Peaks of similarity maps, and the region around each.

Letters: N maps, h w positions.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# A region that covers more of the picture does not locate the label.
LARGEST_SHARE = 1 / 3


class Peaks(NamedTuple):
    """The largest value of each map, and the region around it.

    Attributes:
        values: (N,).
        rows, columns: (N,) int64, where it is.
        regions: bool (N, h, w), the connected positions (8 neighbours) around the peak that are
            above the middle between the mean of the map and the peak.
        useful: bool (N,), whether the region covers at most a third of the map.
    """

    values: Tensor
    rows: Tensor
    columns: Tensor
    regions: Tensor
    useful: Tensor


def find_peaks(maps: Tensor) -> Peaks:
    """Find the peak of each map, and the region around it at half of its height over the mean.

    Args:
        maps: (N, h, w).
    """
    maps = maps.float()
    count, _, width = maps.shape
    values, places = maps.flatten(1).max(dim=1)
    rows, columns = places // width, places % width

    middle = (maps.mean(dim=(1, 2)) + values) / 2
    above = maps >= middle[:, None, None]
    region = torch.zeros_like(above)
    region[torch.arange(count, device=maps.device), rows, columns] = True

    # Grow by one position at a time until nothing changes.
    while True:
        grown = F.max_pool2d(region[:, None].float(), 3, stride=1, padding=1)[:, 0] > 0
        grown &= above
        if torch.equal(grown, region):
            break
        region = grown
    share = region.float().mean(dim=(1, 2))
    return Peaks(values, rows, columns, region, share <= LARGEST_SHARE)


def boxes_of_regions(regions: Tensor) -> Tensor:
    """Return the boxes around regions (N, h, w), none of them empty: XYXY in [0, 1], (N, 4)."""
    _, height, width = regions.shape
    rows = torch.arange(height, device=regions.device)[:, None].expand(height, width)
    columns = torch.arange(width, device=regions.device).expand(height, width)

    # Positions outside a region count neither for its start nor for its end.
    starts = [torch.where(regions, place, height + width) for place in (columns, rows)]
    ends = [torch.where(regions, place + 1, 0) for place in (columns, rows)]
    x0, y0 = (place.amin(dim=(1, 2)) for place in starts)
    x1, y1 = (place.amax(dim=(1, 2)) for place in ends)
    return torch.stack([x0 / width, y0 / height, x1 / width, y1 / height], dim=1).float()
