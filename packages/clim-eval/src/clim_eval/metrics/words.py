"""Two questions about a scene and its words: where is a word, and which word names a box?

Letters: W words of a scene, n boxes, h w positions of a map, C channels.
"""

import torch
from torch import Tensor

from clim_eval.metrics.accuracy import label_ranks


def pointing_hits(maps: Tensor, boxes: Tensor, words: Tensor) -> Tensor:
    """Tell of each word whether the peak of its map lies in one of its true boxes.

    The centre of the position with the largest value counts; of equal values, the first.

    Args:
        maps: (W, h, w) similarities.
        boxes: (n, 4) XYXY in [0, 1] of the map's frame.
        words: int64 (n,), the word that each box shows.

    Returns bool (W,). Example: one word, whose map peaks at the left, and its box there:

        >>> maps = torch.tensor([[[0.9, 0.1]]])
        >>> pointing_hits(maps, torch.tensor([[0.0, 0.0, 0.5, 1.0]]), torch.tensor([0]))
        tensor([True])
    """
    inside = _centres_in_boxes(maps, boxes, words)  # (W, h, w)
    peaks = maps.flatten(1).argmax(dim=1, keepdim=True)
    return inside.flatten(1).gather(1, peaks)[:, 0]


def pointing_chance(maps: Tensor, boxes: Tensor, words: Tensor) -> Tensor:
    """Return how likely a peak at a random position would be right, (W,); see `pointing_hits`."""
    return _centres_in_boxes(maps, boxes, words).flatten(1).float().mean(dim=1)


def naming_hits(features: Tensor, texts: Tensor, words: Tensor) -> Tensor:
    """Tell of each box whether its own word is the most similar of the scene's words.

    Args:
        features: (n, C) of the boxes, unit rows.
        texts: (W, C) of the words, unit rows.
        words: int64 (n,), the word that each box shows.

    Returns bool (n,). Another word with the very same similarity makes it wrong.
    """
    return label_ranks(features @ texts.T, words) == 0


def _centres_in_boxes(maps: Tensor, boxes: Tensor, words: Tensor) -> Tensor:
    """Return bool (W, h, w): the positions whose centre lies in a box of the word."""
    count, height, width = maps.shape
    rows = (torch.arange(height, device=maps.device) + 0.5) / height
    columns = (torch.arange(width, device=maps.device) + 0.5) / width

    left, top, right, bottom = boxes.to(maps.device).unbind(dim=1)
    in_rows = (top[:, None] <= rows) & (rows <= bottom[:, None])  # (n, h)
    in_columns = (left[:, None] <= columns) & (columns <= right[:, None])  # (n, w)
    in_box = in_rows[:, :, None] & in_columns[:, None, :]  # (n, h, w)

    found = torch.zeros(count, height, width, dtype=torch.int32, device=maps.device)
    return found.index_add_(0, words.to(maps.device), in_box.int()) > 0
