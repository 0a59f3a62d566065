"""Masks of boxes and points: all places of all phrases of several images in one pass.

Letters: B images, N phrases of an image, k places of a phrase, m edge of SAM's own masks, H W
pixels of an image.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from flmm.refiners.embedding import ImageEmbedding
from flmm.refiners.refiner import NOTHING, RefinedMasks
from flmm.refiners.sam.geometry import boxes_to_square, masks_to_image
from flmm.refiners.sam.prompts import SamPrompts, encode_places
from flmm.refiners.square import Square

# Logits (P, K, m, m) of P places and their predicted IoU (P, K).
Decoded = tuple[Tensor, Tensor]


def joined_places(
    encoder: Any,
    images: Sequence[ImageEmbedding],
    places: Sequence[Sequence[Tensor]],
    edges: int,
    square: Square,
) -> tuple[SamPrompts, list[int]]:
    """Encode all boxes (edges=4) or all points (edges=2), image after image.

    Returns:
        The prompts, and how many of them each image has.
    """
    weight = encoder.no_mask_embed.weight
    parts = []
    for image, of_phrases in zip(images, places, strict=True):
        own = [found for found in of_phrases if found.shape[1] == edges]
        flat = torch.cat([*own, torch.zeros(0, edges)]).to(weight.device, torch.float32)
        parts.append(boxes_to_square(flat, image.size, square=square))
    return encode_places(encoder, torch.cat(parts)), [len(part) for part in parts]


def masks_of_places(
    made: Mapping[int, Decoded],
    images: Sequence[ImageEmbedding],
    places: Sequence[Sequence[Tensor]],
    *,
    square: Square,
) -> list[RefinedMasks]:
    """Join the masks of the places of each phrase, and bring them to the size of the image.

    Args:
        made: for boxes (4) and points (2), in the order of `joined_places`.
    """
    best = {edges: _best(*decoded) for edges, decoded in made.items()}
    begin = dict.fromkeys(best, 0)
    refined = []
    for image, of_phrases in zip(images, places, strict=True):
        device = image.features.device
        masks = torch.full((len(of_phrases), *image.size), NOTHING, device=device)
        ious = torch.zeros(len(of_phrases), device=device)
        numbers, unions = [], []
        for number, found in enumerate(of_phrases):
            if not len(found):
                continue
            edges = found.shape[1]
            own = slice(begin[edges], begin[edges] + len(found))
            begin[edges] = own.stop
            low_res, expected = (values[own] for values in best[edges])
            # Joined before they are enlarged: an image can have many places, and has many pixels.
            unions.append(low_res.amax(0))  # (m, m)
            ious[number] = expected.mean()
            numbers.append(number)
        if numbers:
            masks[numbers] = masks_to_image(torch.stack(unions), image.size, square=square)
        refined.append(RefinedMasks(masks, ious))
    return refined


def _best(logits: Tensor, ious: Tensor) -> Decoded:
    """Choose the candidate of each place with the best predicted IoU -> (P, m, m), (P,)."""
    rows, chosen = torch.arange(len(ious), device=ious.device), ious.argmax(1)
    return logits[rows, chosen].float(), ious.detach()[rows, chosen].float().clamp(0, 1)
