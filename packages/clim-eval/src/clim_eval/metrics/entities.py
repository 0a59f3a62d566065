"""Boxes of phrases against true ones: Flickr30k Entities (arXiv 1505.04870) and the pointing game
(arXiv 1608.00507).

Letters: N phrases, M true boxes of a phrase at most, H W size of the image in pixels.
"""

from collections.abc import Sequence

import torch
from clim_data.pixels import boxes_of_masks
from torch import Tensor

Box = tuple[float, float, float, float]


def phrase_boxes(logits: Tensor, boxes: Sequence[Sequence[Box]]) -> dict[str, list]:
    """Compare the masks of N phrases with the true boxes of each, all in one batch.

    The box of a phrase is the one around its mask; an empty mask has none, and IoU 0.

    Args:
        logits: (N, H, W); positive is inside.
        boxes: XYXY in pixels, one or more of each phrase.

    Returns:
        "merged" IoU with the box around all true boxes, "any" best IoU with one of them (floats),
        "pointed" whether the highest logit lies in one of them (the pointing game).
    """
    most = max(map(len, boxes), default=1)
    true = logits.new_zeros(len(boxes), most, 4, dtype=torch.float64)  # (N, M, 4)
    given = torch.zeros(len(boxes), most, dtype=torch.bool, device=logits.device)
    for row, of_phrase in enumerate(boxes):
        true[row, : len(of_phrase)] = true.new_tensor(of_phrase)
        given[row, : len(of_phrase)] = True
    far = true.masked_fill(~given[..., None], float("inf"))
    merged = torch.cat([far[..., :2].amin(1), true[..., 2:].amax(1)], dim=-1)  # (N, 4)

    found, empty = boxes_of_masks(logits > 0)
    one = found.to(true)[:, None]
    any_iou = _ious(one, true).masked_fill(~given, 0).amax(1).masked_fill(empty, 0)
    merged_iou = _ious(one, merged[:, None])[:, 0].masked_fill(empty, 0)

    width = logits.shape[-1]
    peak = logits.flatten(1).argmax(1)
    x, y = (peak % width)[:, None] + 0.5, (peak // width)[:, None] + 0.5
    inside = (x > true[..., 0]) & (x < true[..., 2]) & (y > true[..., 1]) & (y < true[..., 3])
    return {
        "merged": [float(value) for value in merged_iou],
        "any": [float(value) for value in any_iou],
        "pointed": (inside & given).any(1).tolist(),
    }


def _ious(a: Tensor, b: Tensor) -> Tensor:
    """IoU (N, M) of boxes (N, 1, 4) with boxes (N, M, 4)."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    return shared / (areas - shared).clamp(min=1e-9)
