"""The prompts that SAM's mask decoder is given for a coarse mask and the words of a phrase.

Letters: n_i phrases of image i, N their sum, S prompt tokens of a phrase, D channels of SAM's
prompts, c channels of its mask network, h w grid of the image embedding, m edge of a mask prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from flmm.refiners.embedding import Size
from flmm.refiners.sam.geometry import binary_masks, boxes_to_square, mask_boxes, prompt_masks
from flmm.refiners.square import Square


@dataclass(frozen=True)
class SamPrompts:
    """Prompts of N phrases.

    boxes: (N, 4) XYXY in the square. sparse: (N, S, D), box corners first (SAM 2 has one more token
    there), then text, then zeros. lengths: number of tokens of each phrase, of S. channels (N, h w,
    c), weight (D, c), bias (D,): the dense prompt is weight @ channels + bias at each position.
    binary: per image bool (n_i, H, W), the coarse masks at half probability.
    """

    boxes: Tensor
    sparse: Tensor
    lengths: list[int]
    channels: Tensor
    weight: Tensor
    bias: Tensor
    binary: list[Tensor]


@dataclass(frozen=True)
class PromptKinds:
    """The kinds of prompts in use: projected words, coarse masks, boxes of these."""

    text: bool = True
    mask: bool = True
    box: bool = True


def encode_prompts(
    encoder: Any,
    sizes: Sequence[Size],
    coarse: Sequence[Tensor],
    text: Sequence[Sequence[Tensor]] | None,
    *,
    square: Square,
    kinds: PromptKinds,
) -> SamPrompts:
    """Encode the prompts of all phrases.

    Args:
        sizes: (H, W) of the images in pixels.
        coarse: per image (n_i, h', w') coarse logits, of any grid.
        text: per image n_i tensors (t, D), the projected words; needed with `kinds.text`.
        square: the refiner's input.
    """
    dtype = encoder.no_mask_embed.weight.dtype
    binary, squares = [], []
    for masks, size in zip(coarse, sizes, strict=True):
        binary.append(binary_masks(masks, size))
        squares.append(boxes_to_square(mask_boxes(binary[-1]), size, square=square))
    boxes = torch.cat(squares)

    # In 16 bits, positions are rounded to other positions before their sines are taken.
    with torch.autocast(boxes.device.type, enabled=False):
        if kinds.box or not square.squashed:
            corners, _ = encoder(None, None, boxes[:, None], None)  # (N, 1, 2, D)
        else:  # SAM 2 and its kin get an empty point where there is no box
            nowhere = boxes.new_zeros(len(boxes), 1, 1, 2)
            absent = -torch.ones(len(boxes), 1, 1, dtype=torch.int32, device=boxes.device)
            corners, _ = encoder(nowhere, absent, None, None)
    keep = corners.shape[2] if kinds.box or square.squashed else 0
    sparse = corners[:, 0, :keep].to(dtype)
    lengths = [sparse.shape[1]] * len(boxes)

    if kinds.text and text is not None and lengths:
        words = [phrase.to(boxes.device, dtype) for phrase in chain.from_iterable(text)]
        sparse = torch.cat([sparse, pad_sequence(words, batch_first=True)], dim=1)  # (N, S, D)
        lengths = [length + len(phrase) for length, phrase in zip(lengths, words, strict=True)]

    prompted = None
    if kinds.mask:
        edge = 4 * encoder.image_embedding_size[0]
        prompted = [
            prompt_masks(logits, size, square=square, mask_edge=edge)
            for logits, size in zip(coarse, sizes, strict=True)
        ]
    channels, weight, bias = _dense(encoder, prompted, count=len(boxes))
    return SamPrompts(boxes, sparse, lengths, channels, weight, bias, binary)


def check_words(
    text: Sequence[Sequence[Tensor]] | None, wanted: Sequence[int], *, width: int
) -> None:
    """Raise ValueError unless each image has the wanted number of phrases, each (t, width)."""
    counts = [len(phrases) for phrases in text or ()]
    if counts != list(wanted):
        raise ValueError(
            f"there are {wanted} coarse masks and {counts} phrases of text per image; pass one "
            "(t, D) tensor per mask, or build SamRefiner(..., use_text=False)"
        )
    for phrase in chain.from_iterable(text or ()):
        if phrase.ndim != 2 or phrase.shape[1] != width:
            raise ValueError(
                f"a phrase has the shape {tuple(phrase.shape)}; pass (tokens, {width})"
            )


def encode_places(encoder: Any, places: Tensor) -> SamPrompts:
    """Encode places in the square: N boxes (N, 4), XYXY, or N points (N, 2), XY."""
    with torch.autocast(places.device.type, enabled=False):  # see `encode_prompts`
        if places.shape[1] == 4:
            tokens, _ = encoder(None, None, places[:, None], None)  # (N, 1, S, D)
        else:
            inside = torch.ones(len(places), 1, 1, dtype=torch.int32, device=places.device)
            tokens, _ = encoder(places[:, None, None], inside, None, None)
    sparse = tokens[:, 0].to(encoder.no_mask_embed.weight.dtype)
    lengths = [sparse.shape[1]] * len(places)
    channels, weight, bias = _dense(encoder, None, count=len(places))
    return SamPrompts(places, sparse, lengths, channels, weight, bias, [])


def _dense(
    encoder: Any, masks: Sequence[Tensor] | None, *, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute channels, weight and bias of the dense prompts of `count` phrases.

    They are the input of the last layer of SAM's mask network, and that layer. masks: per image
    (n_i, m, m) of `prompt_masks`; None for no mask prompts.
    """
    none = encoder.no_mask_embed.weight
    h, w = encoder.image_embedding_size
    if masks is None:  # one vector, the same everywhere
        return none.new_zeros(count, h * w, 1), none.new_zeros(none.shape[1], 1), none[0]

    x = torch.cat(list(masks))[:, None].to(none.dtype)  # (N, 1, m, m)

    net = encoder.mask_embed
    x = net.activation(net.layer_norm1(net.conv1(x)))
    x = net.activation(net.layer_norm2(net.conv2(x)))  # (N, c, h, w)
    last = net.conv3
    assert last.bias is not None  # SAM's convolutions have one
    return x.flatten(2).transpose(1, 2), last.weight.flatten(1), last.bias


def encoded_grid(encode: Any, grid: Size, device: torch.device) -> Tensor:
    """Encode the centres of the cells of a grid (h, w) -> (1, h w, D).

    Args:
        encode: the positional embedding of a SAM.
    """
    y, x = ((torch.arange(n, device=device) + 0.5) / n for n in grid)
    centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (h, w, 2)
    with torch.autocast(device.type, enabled=False):  # as for the corners of boxes
        encoded: Tensor = encode(centres)
    return encoded.flatten(0, 1)[None]


def of_each(features: Tensor, owner: list[int]) -> Tensor:
    """Turn (B, ...) of the images into (N, ...) of the phrases' images, or into (1, ...) if all
    phrases have the same image."""
    return features[owner[0], None] if len(set(owner)) == 1 else features[owner]
