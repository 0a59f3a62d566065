"""The criteria by which heads of a frozen LMM are chosen that find things without any training.

They are those of "Your Large Vision-Language Model Only Needs A Few Attention Heads For Visual
Grounding" (arXiv 2503.06287): a head must look at the image, and the places of its attention must
be compact.

Letters: M maps, C channels (layer, head and view of the image), h w the grid of image tokens.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# Of the heads with the lowest entropy for a phrase, these get a vote; in small models fewer.
VOTES = 10
SMALLEST_SHARE = 4
# Steps of one cell between two comparisons, each of which waits for a GPU.
SPREADS = 8


def regions(inside: Tensor) -> Tensor:
    """Number the 8-connected regions of masks: int64 (M, h, w), 0 outside, equal within a region.

    Args:
        inside: bool (M, h, w).
    """
    height, width = inside.shape[1:]
    numbers = torch.arange(1, height * width + 1, device=inside.device, dtype=torch.float64)
    labels = numbers.view(1, height, width) * inside
    steps = 1 if inside.device.type == "cpu" else SPREADS
    while True:  # the largest number of a region spreads to all of it
        spread = labels
        for _ in range(steps):
            spread = F.max_pool2d(spread[:, None], 3, stride=1, padding=1)[:, 0] * inside
        if torch.equal(spread, labels):
            return labels.long()
        labels = spread


def masses(labels: Tensor, weights: Tensor) -> Tensor:
    """Sum weights (M, h, w) over each region of `regions` -> (M, h * w + 1), by its number."""
    totals = weights.new_zeros(len(labels), labels[0].numel() + 1)
    totals.scatter_add_(1, labels.flatten(1), weights.flatten(1))
    totals[:, 0] = 0  # outside
    return totals


def spatial_entropy(maps: Tensor) -> Tensor:
    """Compute how scattered maps are: the entropy of the mass of their regions, float (M,).

    Regions are 8-connected cells above the mean of the map; their mass is the sum above it. A map
    in one piece has 0. A map without a region, or whose whole bottom row is inside, has
    infinity: such heads look at the end of the image for every phrase.

    Args:
        maps: attention (M, h, w).
    """
    above = (maps - maps.mean(dim=(1, 2), keepdim=True)).clamp(min=0)
    # Rounding can leave values above the mean of a constant map.
    inside = above > 1e-5 * maps.amax(dim=(1, 2), keepdim=True)
    totals = masses(regions(inside), above * inside)  # (M, h * w + 1)
    whole = totals.sum(1, keepdim=True)

    shares = totals / whole.clamp(min=torch.finfo(totals.dtype).tiny)
    entropy = torch.special.entr(shares).sum(1)
    useless = inside[:, -1].all(1) | (whole[:, 0] == 0)
    return entropy.masked_fill(useless, float("inf"))


def elbow(values: Tensor) -> float:
    """Return the value (of n) at which the sorted curve of all is farthest from its chord."""
    ordered = values.double().sort().values
    first, last = ordered[0], ordered[-1]
    chord = first + (last - first) * torch.linspace(0, 1, len(ordered), dtype=torch.float64)
    return float(ordered[(chord - ordered).abs().argmax()])


def vote(attention: Tensor, entropy: Tensor, count: int) -> list[int]:
    """Choose channels: those that look at the image, and of these the ones that are most often
    among the most compact for a phrase.

    Args:
        attention: (phrases, C), the sum of attention to the image.
        entropy: (phrases, C), see `spatial_entropy`.
        count: how many are chosen.

    Returns:
        At most `count` channels, the one with most votes first; of equal ones that with the lower
        mean rank.
    """
    sums = attention.double().mean(0)
    looking = sums > elbow(sums)
    if not looking.any():  # all alike
        looking = torch.ones_like(looking)
    ranked = entropy.masked_fill(~looking, float("inf"))
    votes = min(VOTES, max(1, attention.shape[1] // SMALLEST_SHARE))

    order = ranked.argsort(dim=1, stable=True)  # (phrases, C)
    places = order.argsort(dim=1)
    counted = (places < votes) & ranked.isfinite()
    best = counted.sum(0) - places.double().mean(0) / (attention.shape[1] + 1)
    best = best.masked_fill(~counted.any(0), float("-inf"))
    chosen = best.argsort(descending=True, stable=True)[:count]
    return [int(channel) for channel in chosen if best[channel].isfinite()]


def smoothed(maps: Tensor) -> Tensor:
    """Blur maps (M, h, w) by a Gaussian of 7 x 7 cells, sigma 1; edges are repeated."""
    steps = torch.arange(-3, 4, device=maps.device, dtype=maps.dtype)
    weights = torch.exp(-(steps**2) / 2)
    weights = weights / weights.sum()
    padded = F.pad(maps[:, None], (3, 3, 3, 3), mode="replicate")
    rows = F.conv2d(padded, weights.view(1, 1, 7, 1))
    return F.conv2d(rows, weights.view(1, 1, 1, 7))[:, 0]


def largest_region(inside: Tensor, weights: Tensor) -> Tensor:
    """Keep of masks bool (M, h, w) the region with the largest sum of weights (M, h, w)."""
    labels = regions(inside)
    best = masses(labels, weights).argmax(1)
    return inside & (labels == best[:, None, None])
