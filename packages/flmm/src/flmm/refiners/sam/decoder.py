"""SAM's mask decoder for many phrases in one pass, on the modules and weights of transformers'
`SamMaskDecoder`.

Letters: N phrases, S prompt tokens (padded), T = S + output tokens, P = h x w positions of the
image embedding, D channels, H heads, d channels of a head, K masks of a phrase.

A dozen tokens meet 4096 positions. Where transformers projects every position of every phrase to
keys, values and queries, here the projections are multiplied into the tokens: q . (W x) = (W^T q) .
x. The numbers are the same, no projected image is made, and the positions are read where they lie.
Phrases have different numbers of tokens; those that only fill up the batch are masked wherever
tokens are attended to, so they change nothing. All positions of a phrase are megabytes: they stay
cut into parts from the first layer to the last, p positions each. Source: SAM, arXiv 2304.02643,
appendix A.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import (
    SamAttention,
    SamMaskDecoder,
    SamMLPBlock,
    SamTwoWayAttentionBlock,
)

from flmm.refiners.sam.products import linear, matmul

# Positions that a CPU works on at a time: what is made of them (a megabyte, two while masks are
# enlarged) then stays in its caches, and there are still few calls. An accelerator takes all of
# them.
POSITIONS_AT_ONCE = 1024


class Part(NamedTuple):
    """Some positions of N phrases: their values (N, p, D), and their keys, which are the values
    plus the encoding."""

    values: Tensor
    keys: Tensor


@dataclass(frozen=True)
class PromptedImage:
    """The image side of N phrases: embedding plus dense prompt, a linear map of few channels, made
    where it is read.

    features: (N, P, D), or (1, P, D) for phrases of one image. channels: (N, P, c). weight: (D, c).
    bias: (D,). positions: (1, P, D), the positional encoding of the grid.
    """

    features: Tensor
    channels: Tensor
    weight: Tensor
    bias: Tensor
    positions: Tensor

    def parts(self) -> Iterator[Tensor]:
        """Embedding plus prompt, (N, p, D) for some positions after the other."""
        for features, channels in zip(_split(self.features), _split(self.channels), strict=True):
            yield linear(channels, self.weight, self.bias, plus=features)

    def placed(self, parts: Iterable[Tensor]) -> Iterator[Part]:
        """What is at each position, of `parts` or of a later layer, with where it is."""
        for part, place in zip(parts, _split(self.positions), strict=True):
            yield Part(part, part + place)


def decode(
    decoder: SamMaskDecoder,
    image: PromptedImage,
    *,
    sparse: Tensor,
    present: Tensor,
    multimask: bool,
) -> tuple[Tensor, Tensor]:
    """Masks of N phrases.

    Args:
        sparse: (N, S, D) prompt tokens.
        present: bool (N, S), False for tokens that fill up the batch.
        multimask: the three candidates instead of the single mask.

    Returns:
        Logits (N, K, P, 4, 4) of the pixels of each position, and predicted IoU (N, K).
    """
    outputs = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat(
        [outputs.expand(len(sparse), -1, -1), sparse.to(outputs.dtype)], dim=1
    )  # (N, T, D)
    present = F.pad(present, (len(outputs), 0), value=True)  # (N, T)
    queries, parts = tokens, image.parts()
    for block in decoder.transformer.layers:
        queries, parts = _two_way(
            block, queries, image.placed(parts), tokens=tokens, present=present
        )
    count, kept = decoder.num_mask_tokens, slice(1, None) if multimask else slice(0, 1)
    # With gradients all masks go on to the end: those that are left out train with a gradient of
    # zero, not without.
    made, chosen = (
        (range(count), kept) if torch.is_grad_enabled() else (range(count)[kept], slice(None))
    )
    read = [
        0,
        *(1 + i for i in made),
    ]  # what has become of the other tokens is not looked at any more
    final = decoder.transformer.final_attn_token_to_image
    attended, parts = tokens_read_image(final, (queries + tokens)[:, read], image.placed(parts))
    queries = decoder.transformer.layer_norm_final_attn(queries[:, read] + attended)
    weights = [
        decoder.output_hypernetworks_mlps[i](queries[:, 1 + place]) for place, i in enumerate(made)
    ]
    masks = upscale(
        decoder, [part.values for part in parts], torch.stack(weights, dim=1)[:, chosen]
    )
    return masks, decoder.iou_prediction_head(queries[:, 0])[:, kept]


def _split(positions: Tensor) -> tuple[Tensor, ...]:
    """(N, P, C) -> parts (N, p, C); an accelerator takes all at once."""
    return positions.split(
        POSITIONS_AT_ONCE if positions.device.type == "cpu" else positions.shape[1], dim=1
    )


def _two_way(
    block: SamTwoWayAttentionBlock,
    queries: Tensor,
    image: Iterable[Part],
    *,
    tokens: Tensor,
    present: Tensor,
) -> tuple[Tensor, Iterator[Tensor]]:
    """Tokens attend to each other and to the image, then the image to the tokens: that, part by
    part, when asked."""
    placed = queries if block.skip_first_layer_pe else queries + tokens
    attended = tokens_read_tokens(block.self_attn, placed, queries, present=present)
    queries = block.layer_norm1(attended if block.skip_first_layer_pe else queries + attended)
    attended, image = tokens_read_image(block.cross_attn_token_to_image, queries + tokens, image)
    queries = block.layer_norm2(queries + attended)
    queries = block.layer_norm3(queries + _mlp(block.mlp, queries))
    written = image_reads_tokens(
        block.cross_attn_image_to_token,
        image,
        tokens=queries + tokens,
        values=queries,
        present=present,
    )
    return queries, map(block.layer_norm4, written)


def _mlp(mlp: SamMLPBlock, tokens: Tensor) -> Tensor:
    hidden = mlp.act(linear(tokens, mlp.lin1.weight, mlp.lin1.bias))
    return linear(hidden, mlp.lin2.weight, mlp.lin2.bias)


def tokens_read_tokens(
    attention: SamAttention, tokens: Tensor, values: Tensor, *, present: Tensor
) -> Tensor:
    """Self-attention of tokens (N, T, D) to those that are present (N, T), with values (N, T,
    D)."""
    q, k = (
        _heads(project(tokens), attention).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj)
    )
    v = _heads(attention.v_proj(values), attention).transpose(1, 2)  # (N, H, T, d)
    read = F.scaled_dot_product_attention(
        q, k, v, attn_mask=present[:, None, None], scale=attention.scaling
    )
    return attention.out_proj(read.transpose(1, 2).flatten(2))


def tokens_read_image(
    attention: SamAttention, tokens: Tensor, image: Iterable[Part]
) -> tuple[Tensor, list[Part]]:
    """Attention of tokens (N, T, D) to the image -> (N, T, D), and the image.

    Every part is scored as soon as it is made, while it is in the cache.
    """
    q = attention.scaling * _heads(attention.q_proj(tokens), attention)  # (N, T, H, d)
    folded, offsets = _fold(q, attention.k_proj)  # (N, H T, D), (N, H T, 1)
    parts, scores = [], []
    for part in image:
        parts.append(part)
        scores.append(matmul(folded, part.keys.transpose(1, 2)) + offsets)  # (N, H T, p)
    weights = (
        torch.cat(scores, dim=2).softmax(-1).split([part.keys.shape[1] for part in parts], dim=2)
    )
    means = sum(
        matmul(w, part.values) for w, part in zip(weights, parts, strict=True)
    )  # (N, H T, D)
    means = means.unflatten(1, (attention.num_attention_heads, -1))
    v_weight = attention.v_proj.weight.unflatten(
        0, (attention.num_attention_heads, -1)
    )  # (H, d, D)
    read = torch.einsum("nhtc,hdc->nthd", means, v_weight).flatten(2)
    return attention.out_proj(read + attention.v_proj.bias), parts


def image_reads_tokens(
    attention: SamAttention,
    image: Iterable[Part],
    *,
    tokens: Tensor,
    values: Tensor,
    present: Tensor,
) -> Iterator[Tensor]:
    """The image plus its attention to tokens and values (N, T, D): (N, p, D), one part after the
    other."""
    heads = attention.num_attention_heads
    k = attention.scaling * _heads(attention.k_proj(tokens), attention)  # (N, T, H, d)
    folded, offsets = _fold(k, attention.q_proj)
    offsets = offsets.masked_fill(~present.repeat(1, heads)[..., None], float("-inf"))
    v = _heads(attention.v_proj(values), attention)
    out = attention.out_proj.weight.unflatten(1, (heads, -1))  # (D, H, d)
    # The weights of a head sum to 1, so that its share of the bias can travel with the values.
    written = (
        torch.einsum("nthd,chd->nhtc", v, out).flatten(1, 2) + attention.out_proj.bias / heads
    )  # (N, H T, D)
    for part in image:
        scores = matmul(folded, part.keys.transpose(1, 2)) + offsets
        weights = scores.unflatten(1, (heads, -1)).softmax(2).flatten(1, 2)  # (N, H T, p)
        yield matmul(weights.transpose(1, 2), written, plus=part.values)


def upscale(decoder: SamMaskDecoder, parts: Iterable[Tensor], weights: Tensor) -> Tensor:
    """Positions (N, p, D) to 4 x 4 pixels each, times the masks' weights (N, K, D / 8) -> logits
    (N, K, P, 4, 4).

    Transposed convolutions of stride and size 2 give every position four pixels of its own: linear
    maps.
    """
    norm, masks = decoder.upscale_layer_norm, []
    first, second = _four_pixels(decoder.upscale_conv1), _four_pixels(decoder.upscale_conv2)
    for part in parts:
        x = linear(part, *first).unflatten(-1, (4, -1))  # (N, p, 4, D / 4)
        x = decoder.activation(
            F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        )
        x = (
            decoder.activation(linear(x, *second)).flatten(2).unflatten(2, (16, -1))
        )  # (N, p, 16, D / 8)
        masks.append(matmul(x.flatten(1, 2), weights.transpose(1, 2)))  # (N, 16 p, K)
    pixels = torch.cat(masks, dim=1).unflatten(
        1, (-1, 2, 2, 2, 2)
    )  # (N, P, y, x, y, x, K): coarse, then fine
    return pixels.permute(0, 6, 1, 2, 4, 3, 5).flatten(3, 4).flatten(4, 5)


def _four_pixels(conv: nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """Weight (4 c, C) and bias (4 c,) of the top left, top right, bottom left, bottom right pixel
    of a position."""
    weight = conv.weight.permute(2, 3, 1, 0).reshape(
        -1, conv.in_channels
    )  # (C, c, 2, 2) -> (4 c, C)
    return weight, conv.bias.repeat(4)


def _fold(x: Tensor, projection: nn.Linear) -> tuple[Tensor, Tensor]:
    """x (N, T, H, d) times the projection of each head: rows (N, H T, D), offsets (N, H T, 1).

    rows . y + offset is x . projection(y) of that head, for any y of D channels.
    """
    heads = x.shape[2]
    rows = torch.einsum("nthd,hdc->nhtc", x, projection.weight.unflatten(0, (heads, -1)))
    offsets = torch.einsum("nthd,hd->nht", x, projection.bias.view(heads, -1))
    return rows.flatten(1, 2), offsets.flatten(1)[..., None]


def _heads(x: Tensor, attention: SamAttention) -> Tensor:
    return x.unflatten(-1, (attention.num_attention_heads, -1))
