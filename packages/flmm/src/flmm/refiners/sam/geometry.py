"""From coarse masks to SAM's prompts, and from its low-resolution masks to the image: geometry
without weights.

Frames: an image of H x W pixels (original) has its frame (resized) in the top left corner of a
square, see `flmm.refiners.square`; the rest of the square is padding (F-LMM, arXiv 2406.05821).
Letters: n masks of one image, h w the grid of their coarse logits, m the edge of SAM's own masks
(256).
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from clim_data.pixels import boxes_of_masks
from torch import Tensor

from flmm.refiners.embedding import Size
from flmm.refiners.square import Square

# Of an image, whose interpolation is a matrix product: few enough to need few rows of SAM's mask.
# An accelerator takes all of them: it would wait for the copy of each piece of the matrix.
ROWS_AT_ONCE = 64


def prompt_masks(coarse: Tensor, original: Size, *, square: Square, mask_edge: int) -> Tensor:
    """Coarse logits (n, h, w) of an image -> float32 mask prompts (n, m, m) of the padded square,
    with gradients.

    Equal to enlarging the logits to the resized frame, padding them to the square with min(-1,
    their least value) and shrinking that to m, each bilinearly; all three are linear, so they are
    one small matrix on either side here and no map of the full square is made.
    """
    coarse = coarse.float()
    height, width = square.frame(original)
    edge = square.edge
    if square.squashed:  # there is no padding, and interpolating once is enough
        height = width = edge = mask_edge
    down = _chain(coarse.shape[-2], height, edge, mask_edge).to(coarse.device)  # (m, h)
    across = _chain(coarse.shape[-1], width, edge, mask_edge).to(coarse.device)  # (m, w)
    outside = 1 - down.sum(1)[:, None] * across.sum(1)  # the share of padding in each pixel
    with torch.autocast(coarse.device.type, enabled=False):
        inside = down @ coarse @ across.T  # (n, m, m)
    return inside + outside * least_value(coarse)


def least_value(coarse: Tensor) -> Tensor:
    """Return min(-1, least logit of all masks), without a gradient: the padding of
    `prompt_masks`."""
    least = coarse.detach().amin() if coarse.numel() else coarse.new_zeros(())
    return least.clamp(max=-1)


def binary_masks(coarse: Tensor, original: Size) -> Tensor:
    """Coarse logits (n, h, w) -> bool (n, H, W): PROBABILITIES are interpolated, then compared with
    one half."""
    probabilities = coarse.detach().float().sigmoid()[:, None]
    return _bilinear(probabilities, original)[:, 0] > 0.5


def mask_boxes(masks: Tensor) -> Tensor:
    """Smallest boxes around bool masks (n, H, W) -> float32 (n, 4) XYXY in pixels, right and bottom
    edge exclusive.

    An empty mask has the box of the whole image.
    """
    height, width = masks.shape[-2:]
    boxes, empty = boxes_of_masks(masks)
    whole = boxes.new_tensor([0, 0, width, height])
    return torch.where(empty[:, None], whole, boxes).float()


def boxes_to_square(boxes: Tensor, original: Size, *, square: Square) -> Tensor:
    """XYXY boxes (n, 4) or XY points (n, 2) in pixels of the original image -> of the padded
    square, by the ratio of the rounded sizes."""
    height, width = square.frame(original)
    y, x = height / original[0], width / original[1]
    return boxes * boxes.new_tensor([x, y] * (boxes.shape[1] // 2))


def masks_to_image(low_res: Tensor, original: Size, *, square: Square) -> Tensor:
    """Turn SAM's masks (n, m, m) of the padded square into float32 logits (n, H, W) of the original
    image.

    Equal to enlarging them to the square, cutting them to the resized frame and interpolating to
    the original size, each bilinearly; all columns first and then all rows, by one small matrix
    each.
    """
    height, width = square.frame(original)
    edge = square.edge
    m, device = low_res.shape[-1], low_res.device
    if square.squashed:
        height = width = edge = m
    down = _chain(m, edge, height, original[0])  # (H, m)
    across = _chain(m, edge, width, original[1])  # (W, m)

    at_once = ROWS_AT_ONCE if device.type == "cpu" else len(down)
    with torch.autocast(device.type, enabled=False):
        columns = F.linear(low_res.float(), across.to(device))  # (n, m, W)
        bands = []
        for weights, near in _bands(down, at_once):
            bands.append(weights.to(device) @ columns[:, near])
        return torch.cat(bands, dim=1)


def closest_candidates(candidates: Tensor, masks: Tensor) -> Tensor:
    """Return, of K candidate logits (n, K, H, W), the number (n,) of the one whose positive part
    has the best IoU with each bool mask (n, H, W)."""
    positive = candidates.detach() > 0
    intersection = (positive & masks[:, None]).flatten(2).sum(2)
    union = (positive | masks[:, None]).flatten(2).sum(2)
    return (intersection / union.clamp(min=1)).argmax(1)


def _bilinear(x: Tensor, size: Size) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _chain(source: int, enlarged: int, framed: int, target: int) -> Tensor:
    """The matrix (target, source) of: interpolate `source` to `enlarged`, cut or pad to `framed`,
    interpolate."""
    rows = torch.eye(source)[None]  # torch's own rule, applied to every unit vector
    rows = F.interpolate(rows, size=enlarged, mode="linear", align_corners=False)
    rows = F.pad(rows, (0, framed - enlarged))  # a negative pad cuts
    return F.interpolate(rows, size=target, mode="linear", align_corners=False)[0].T


def _bands(matrix: Tensor, at_once: int) -> Iterator[tuple[Tensor, slice]]:
    """Some rows of a matrix of `_chain` after the other: without the columns that are zero, and
    which are left.

    Interpolation looks at neighbours only, so that most of the matrix is zero.
    """
    for rows in matrix.split(at_once):
        used = rows.any(0).nonzero()
        near = slice(int(used[0]), int(used[-1]) + 1)
        yield rows[:, near], near
