"""Where a model sees a text in one image: similarity map, best mask and best box.

Letters: N texts, C channels, H W pixels of the network input, h w feature positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from clim_data.pixels import box_of_mask
from clim_models import RegionModel, pool_masks
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize


@dataclass(frozen=True)
class TextLocations:
    """Similarity of N texts with an image; all frames cover the whole image."""

    maps: np.ndarray  # (N, h, w) cosines
    masks: np.ndarray  # (N, h, w) bool, the best region of each text
    boxes: np.ndarray  # (N, 4) XYXY in [0, 1], its extent
    scores: np.ndarray  # (N,) cosine of the region's pooled feature with the text


@torch.no_grad()
def locate_texts(
    model: RegionModel,
    image: Tensor,
    text_features: Tensor,
    *,
    image_px: int | None = None,
    readout: str = "value_residual",
) -> TextLocations:
    """Compare every patch of one image with every text and take the best region of each map
    (`best_region`).

    Args:
        model: RegionModel.
        image: (3, H, W) uint8 of any size; it is resized, not padded.
        text_features: (N, C), normalised here.
        image_px: longest side of the network input in pixels, default the model's own; both sides
            are rounded to multiples of the stride.
        readout: dense readout of ``encode_dense``.
    """
    height, width = input_size(image.shape[1:], image_px or max(model.image_size), model.stride)
    resized = resize(
        image, [height, width], interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    dense = model.encode_dense(
        model.normalize_pixels(resized[None]), readout=readout
    )  # (1, C, h, w)
    texts = F.normalize(text_features.to(dense.device).float(), dim=-1)  # (N, C)
    maps = torch.einsum("nc,chw->nhw", texts, dense[0].float()).cpu().numpy()
    masks = np.stack([best_region(values) for values in maps])
    pooled = F.normalize(
        pool_masks(dense.float(), [torch.from_numpy(masks).to(dense)]), dim=-1
    )  # (N, C)
    return TextLocations(
        maps=maps,
        masks=masks,
        boxes=np.stack([_box_in_unit_square(mask) for mask in masks]),
        scores=(pooled * texts).sum(dim=-1).cpu().numpy(),
    )


def _box_in_unit_square(mask: np.ndarray) -> np.ndarray:
    """Return the box around a mask (h, w), which is not empty, as XYXY in [0, 1]."""
    height, width = mask.shape
    box = box_of_mask(mask)
    assert box is not None
    return np.array(box) / np.array([width, height, width, height])


def encode_texts(
    model: RegionModel, texts: Sequence[str], prompts: Callable[[str], list[str]] | None = None
) -> Tensor:
    """Return (N, C) unit rows of texts as they are, or of the mean over ``prompts(text)``."""
    rows = []
    device = next(model.parameters()).device
    with torch.no_grad():
        for text in texts:
            tokens = model.tokenizer(prompts(text) if prompts else [text]).to(device)
            rows.append(F.normalize(model.encode_text(tokens).float().mean(dim=0), dim=0))
    return torch.stack(rows)


def input_size(size: Sequence[int], image_px: int, stride: int) -> tuple[int, int]:
    """Return (height, width) with the longest side near ``image_px``, the same shape, and multiples
    of ``stride``."""
    scale = image_px / max(size)
    height, width = (max(stride, round(side * scale / stride) * stride) for side in size)
    return height, width


def best_region(values: np.ndarray) -> np.ndarray:
    """Find the connected region (4 neighbours) around the maximum of an (h, w) map that lies above
    Otsu's threshold.

    Otsu's threshold splits the values so that the variance between the two groups is largest (IEEE
    Transactions on Systems, Man and Cybernetics 9(1), 1979). Returns (h, w) booleans with at least
    one position.
    """
    region = np.zeros(values.shape, dtype=bool)
    region[np.unravel_index(values.argmax(), values.shape)] = True
    above = values > otsu_threshold(values)
    while True:
        grown = region.copy()
        grown[1:] |= region[:-1]
        grown[:-1] |= region[1:]
        grown[:, 1:] |= region[:, :-1]
        grown[:, :-1] |= region[:, 1:]
        grown &= above | region
        if (grown == region).all():
            return region
        region = grown


def otsu_threshold(values: np.ndarray) -> float:
    """Return the value v for which splitting into <= v and > v leaves the largest variance between
    the groups."""
    ordered = np.sort(np.asarray(values, dtype=np.float64).ravel())
    n = len(ordered)
    below = np.arange(1, n)
    sums = np.cumsum(ordered)
    between = below * (n - below) * (sums[:-1] / below - (sums[-1] - sums[:-1]) / (n - below)) ** 2
    return float(ordered[between.argmax()]) if n > 1 else float("-inf")
