"""The place of a text in one image: its similarity map, the peak, and the region around it.

Letters: N texts, n boxes, C channels, H W pixels of the network input, h w feature positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from clim_data.pixels import box_of_mask
from clim_models import Dense, Pooled, Readout, RegionModel, Request
from clim_models.pipelines import find_peaks, fitted_to_patches
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize


@dataclass(frozen=True)
class TextLocations:
    """Similarity of N texts with an image; all frames cover the whole image.

    Attributes:
        maps: (N, h, w) cosines.
        peaks: (N, 2) XY in [0, 1], the centre of the position with the largest cosine.
        scores: (N,) that cosine. contrasts: (N,) how far it lies above the median of the map.
        masks: (N, h, w) bool, the connected region around the peak at half of its height; empty
            where that covers more than a third of the image, since it then has no meaning.
        boxes: (N, 4) XYXY in [0, 1], the extent of the region; nan where it is empty.
        box_scores: (n, N) cosines of given boxes with the texts, or None.
    """

    maps: np.ndarray
    peaks: np.ndarray
    scores: np.ndarray
    contrasts: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    box_scores: np.ndarray | None = None


@torch.no_grad()
def locate_texts(
    model: RegionModel,
    image: Tensor,
    text_features: Tensor,
    *,
    image_px: int | None = None,
    readout: str = "value_residual",
    boxes: Tensor | None = None,
) -> TextLocations:
    """Compare every patch of one image with every text, and find the peak of each map.

    Args:
        model: RegionModel.
        image: (3, H, W) uint8 of any size; it is resized, not padded.
        text_features: (N, C), normalised here.
        image_px: longest side of the network input in pixels; default: the size of the model's
            training, else its own. Both sides are rounded to multiples of the stride.
        readout: dense readout of ``encode_dense``.
        boxes: (n, 4) XYXY in [0, 1] of the image, to be named.
    """
    longest = image_px or model.eval_px or max(model.image_size)
    height, width = fitted_to_patches((image.shape[1], image.shape[2]), longest, model.stride)
    resized = resize(
        image, [height, width], interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    pixels = model.normalize_pixels(resized[None])

    dense, pooled = Dense(Readout(readout)), Pooled("boxes", Readout(readout))
    requests: list[Request] = [dense] if boxes is None else [dense, pooled]
    given = None if boxes is None else [boxes.to(pixels.device)]
    features = model.encode(pixels, requests, boxes=given)

    rows = features[dense][0].float()  # (C, h, w)
    texts = F.normalize(text_features.to(rows.device).float(), dim=-1)  # (N, C)
    maps = torch.einsum("nc,chw->nhw", texts, rows).cpu()
    box_scores = None if boxes is None else (features[pooled].float() @ texts.T).cpu().numpy()
    return _locations(maps, box_scores)


def _locations(maps: Tensor, box_scores: np.ndarray | None) -> TextLocations:
    """Find peaks and regions of the maps (N, h, w)."""
    found = find_peaks(maps)
    height, width = maps.shape[1:]
    columns, rows = (found.columns.float() + 0.5) / width, (found.rows.float() + 0.5) / height
    masks = (found.regions & found.useful[:, None, None]).numpy()
    return TextLocations(
        maps=maps.numpy(),
        peaks=torch.stack([columns, rows], dim=1).numpy(),
        scores=found.values.numpy(),
        contrasts=(found.values - maps.flatten(1).median(dim=1).values).numpy(),
        masks=masks,
        boxes=np.stack([_box_in_unit_square(mask) for mask in masks]),
        box_scores=box_scores,
    )


def _box_in_unit_square(mask: np.ndarray) -> np.ndarray:
    """Return the box around a mask (h, w) as XYXY in [0, 1], nan around nothing."""
    height, width = mask.shape
    box = box_of_mask(mask)
    if box is None:
        return np.full(4, np.nan)
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
