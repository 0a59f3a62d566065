"""SAM's mask decoder for many phrases in one pass, on the modules and weights of transformers'
`SamMaskDecoder`.

Letters: N phrases, S prompt tokens (padded), T = S + output tokens, P = h x w positions of the
image embedding, p positions of one part, D channels, H heads, d channels of a head, K masks of a
phrase.

Three things are unusual here. The results equal those of one phrase at a time.

- A dozen tokens meet 4096 positions. transformers projects every position of every phrase to keys,
  values and queries. Here the projections are multiplied into the tokens instead:
  q . (W x) = (W^T q) . x. No projected image is made.
- Phrases have different numbers of tokens. Tokens that only fill up the batch are masked wherever
  other tokens or positions attend to them, so they change nothing.
- All positions of one phrase are megabytes. They are cut into parts that fit a CPU's caches, from
  the first layer to the last. Parts are iterators: a part is made when the next layer reads it.

Source: SAM, arXiv 2304.02643, appendix A.
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
    SamTwoWayAttentionBlock,
)

# Positions per part on a CPU. A part then takes one megabyte (two while masks are enlarged), which
# stays in the caches, and there are still few calls. An accelerator takes all positions at once.
POSITIONS_AT_ONCE = 1024


class Part(NamedTuple):
    """Some positions of N phrases.

    values: (N, p, D). keys: (N, p, D), the values plus the positional encoding.
    """

    values: Tensor
    keys: Tensor


@dataclass(frozen=True)
class PromptedImage:
    """The image side of N phrases: image embedding plus dense prompt.

    The dense prompt is a linear map of few channels and is computed part by part, where it is read.

    features: (N, P, D), or (1, P, D) for phrases of one image. channels: (N, P, c). weight: (D, c).
    bias: (D,). positions: (1, P, D), the positional encoding of the grid.
    """

    features: Tensor
    channels: Tensor
    weight: Tensor
    bias: Tensor
    positions: Tensor

    def parts(self) -> Iterator[Tensor]:
        """Yield embedding plus prompt, (N, p, D), part by part."""
        for features, channels in zip(_split(self.features), _split(self.channels), strict=True):
            yield F.linear(channels, self.weight, self.bias) + features

    def with_positions(self, parts: Iterable[Tensor]) -> Iterator[Part]:
        """Add the positional encoding to `parts` (N, p, D), which may come from a later layer."""
        for values, encoding in zip(parts, _split(self.positions), strict=True):
            yield Part(values, values + encoding)


def decode(
    decoder: SamMaskDecoder,
    image: PromptedImage,
    *,
    sparse: Tensor,
    present: Tensor,
    multimask: bool,
) -> tuple[Tensor, Tensor]:
    """Decode the masks of N phrases.

    Args:
        sparse: (N, S, D) prompt tokens.
        present: bool (N, S), False for tokens that fill up the batch.
        multimask: return the three candidates instead of the single mask.

    Returns:
        Logits (N, K, P, 4, 4) of the pixels of each position, and predicted IoU (N, K).
    """
    outputs = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    outputs = outputs.expand(len(sparse), -1, -1)
    tokens = torch.cat([outputs, sparse.to(outputs.dtype)], dim=1)  # (N, T, D)
    present = F.pad(present, (outputs.shape[1], 0), value=True)  # (N, T)

    queries = tokens
    parts: Iterable[Tensor] = image.parts()
    for block in decoder.transformer.layers:
        assert isinstance(block, SamTwoWayAttentionBlock)
        located = image.with_positions(parts)
        queries, parts = _two_way(block, queries, located, tokens=tokens, present=present)

    # Token 0 predicts the IoU, token 1 + i is mask i. The single mask is 0, the candidates follow.
    wanted = slice(1, None) if multimask else slice(0, 1)
    masks = range(decoder.num_mask_tokens)
    chosen = wanted
    if not torch.is_grad_enabled():
        # With gradients every mask is computed to the end: the weights of the others then train
        # with a gradient of zero, and every rank has the same set of gradients.
        masks = masks[wanted]
        chosen = slice(None)

    # The last attention serves only the tokens that are read after it.
    read = [0, *(1 + i for i in masks)]
    final = decoder.transformer.final_attn_token_to_image
    located = image.with_positions(parts)
    attended, last_parts = tokens_read_image(final, (queries + tokens)[:, read], located)
    queries = decoder.transformer.layer_norm_final_attn(queries[:, read] + attended)

    weights = []
    for place, i in enumerate(masks):
        weights.append(decoder.output_hypernetworks_mlps[i](queries[:, 1 + place]))  # (N, D / 8)
    mask_weights = torch.stack(weights, dim=1)[:, chosen]  # (N, K, D / 8)

    logits = upscale(decoder, [part.values for part in last_parts], mask_weights)
    ious = decoder.iou_prediction_head(queries[:, 0])[:, wanted]
    return logits, ious


def _split(positions: Tensor) -> tuple[Tensor, ...]:
    """Cut (N, P, C) into parts (N, p, C); an accelerator takes all positions at once."""
    on_cpu = positions.device.type == "cpu"
    return positions.split(POSITIONS_AT_ONCE if on_cpu else positions.shape[1], dim=1)


def _two_way(
    block: SamTwoWayAttentionBlock,
    queries: Tensor,
    image: Iterable[Part],
    *,
    tokens: Tensor,
    present: Tensor,
) -> tuple[Tensor, Iterator[Tensor]]:
    """Run one block: tokens attend to tokens and to the image, then the image attends to tokens.

    Returns:
        Tokens (N, T, D), and the parts (N, p, D) of the image, each computed when it is read.
    """
    if block.skip_first_layer_pe:
        queries = tokens_read_tokens(block.self_attn, queries, queries, present=present)
    else:
        attended = tokens_read_tokens(block.self_attn, queries + tokens, queries, present=present)
        queries = queries + attended
    queries = block.layer_norm1(queries)

    attended, parts = tokens_read_image(block.cross_attn_token_to_image, queries + tokens, image)
    queries = block.layer_norm2(queries + attended)
    queries = block.layer_norm3(queries + block.mlp(queries))

    written = image_reads_tokens(
        block.cross_attn_image_to_token,
        parts,
        tokens=queries + tokens,
        values=queries,
        present=present,
    )
    return queries, map(block.layer_norm4, written)


def tokens_read_tokens(
    attention: SamAttention, tokens: Tensor, values: Tensor, *, present: Tensor
) -> Tensor:
    """Attend from tokens (N, T, D) to those that are `present`, bool (N, T); values (N, T, D)."""
    q = _heads(attention.q_proj(tokens), attention).transpose(1, 2)  # (N, H, T, d)
    k = _heads(attention.k_proj(tokens), attention).transpose(1, 2)
    v = _heads(attention.v_proj(values), attention).transpose(1, 2)

    visible = present[:, None, None]  # (N, 1, 1, T)
    read = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=attention.scaling)
    return attention.out_proj(read.transpose(1, 2).flatten(2))


def tokens_read_image(
    attention: SamAttention, tokens: Tensor, image: Iterable[Part]
) -> tuple[Tensor, list[Part]]:
    """Attend from tokens (N, T, D) to the image.

    Returns:
        What the tokens read, (N, T, D), and the parts of the image.
    """
    heads = attention.num_attention_heads
    q = attention.scaling * _heads(attention.q_proj(tokens), attention)  # (N, T, H, d)
    folded, offsets = _fold(q, attention.k_proj)  # (N, H T, D), (N, H T, 1)

    # Score every part as soon as it is made, while it is in the cache.
    parts, scores = [], []
    for part in image:
        parts.append(part)
        scores.append(torch.bmm(folded, part.keys.transpose(1, 2)) + offsets)  # (N, H T, p)

    lengths = [part.keys.shape[1] for part in parts]
    weights = torch.cat(scores, dim=2).softmax(-1).split(lengths, dim=2)

    # The mean of the positions comes first and the value projection after it: both are linear.
    means = torch.bmm(weights[0], parts[0].values)  # (N, H T, D)
    for w, part in zip(weights[1:], parts[1:], strict=True):
        means = means + torch.bmm(w, part.values)
    means = means.unflatten(1, (heads, -1))  # (N, H, T, D)
    v_weight = attention.v_proj.weight.unflatten(0, (heads, -1))  # (H, d, D)
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
    """Attend from the image to tokens and values (N, T, D), and add the result to the image.

    Yields:
        (N, p, D), part by part.
    """
    heads = attention.num_attention_heads
    k = attention.scaling * _heads(attention.k_proj(tokens), attention)  # (N, T, H, d)
    folded, offsets = _fold(k, attention.q_proj)
    absent = ~present.repeat(1, heads)[..., None]  # (N, H T, 1)
    offsets = offsets.masked_fill(absent, float("-inf"))

    v = _heads(attention.v_proj(values), attention)
    out = attention.out_proj.weight.unflatten(1, (heads, -1))  # (D, H, d)
    written = torch.einsum("nthd,chd->nhtc", v, out).flatten(1, 2)  # (N, H T, D)
    # The weights of each head sum to 1, so each head carries its part of the bias with the values.
    written = written + attention.out_proj.bias / heads

    for part in image:
        scores = torch.bmm(folded, part.keys.transpose(1, 2)) + offsets  # (N, H T, p)
        weights = scores.unflatten(1, (heads, -1)).softmax(2).flatten(1, 2)
        yield torch.baddbmm(part.values, weights.transpose(1, 2), written)


def upscale(decoder: SamMaskDecoder, parts: Iterable[Tensor], weights: Tensor) -> Tensor:
    """Enlarge positions (N, p, D) to 4 x 4 pixels each and multiply by weights (N, K, D / 8).

    Transposed convolutions of stride and size 2 give every position four pixels of its own, so they
    are linear maps of positions.

    Returns:
        Logits (N, K, P, 4, 4).
    """
    norm = decoder.upscale_layer_norm
    first = _four_pixels(decoder.upscale_conv1)
    second = _four_pixels(decoder.upscale_conv2)

    masks = []
    for part in parts:
        x = F.linear(part, *first).unflatten(-1, (4, -1))  # (N, p, 4, D / 4)
        x = F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        x = F.linear(decoder.activation(x), *second)  # (N, p, 4, 4 D / 8)
        x = decoder.activation(x).flatten(2).unflatten(2, (16, -1))  # (N, p, 16, D / 8)
        masks.append(torch.bmm(x.flatten(1, 2), weights.transpose(1, 2)))  # (N, 16 p, K)

    # (N, P, y, x, y, x, K): the pixel of the first convolution, then that of the second.
    pixels = torch.cat(masks, dim=1).unflatten(1, (-1, 2, 2, 2, 2))
    return pixels.permute(0, 6, 1, 2, 4, 3, 5).flatten(3, 4).flatten(4, 5)


def _four_pixels(conv: nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """Weight (4 c, C) and bias (4 c,) of a position's four pixels, row by row."""
    weight = conv.weight.permute(2, 3, 1, 0)  # (C, c, 2, 2) -> (2, 2, c, C)
    assert conv.bias is not None  # SAM's convolutions have one
    return weight.reshape(-1, conv.in_channels), conv.bias.repeat(4)


def _fold(x: Tensor, projection: nn.Linear) -> tuple[Tensor, Tensor]:
    """Multiply x (N, T, H, d) by the projection of each head -> rows (N, H T, D), offsets
    (N, H T, 1).

    For any y of D channels, rows . y + offset is x . projection(y) of that head.
    """
    heads = x.shape[2]
    weight = projection.weight.unflatten(0, (heads, -1))  # (H, d, D)
    rows = torch.einsum("nthd,hdc->nhtc", x, weight)
    offsets = torch.einsum("nthd,hd->nht", x, projection.bias.view(heads, -1))
    return rows.flatten(1, 2), offsets.flatten(1)[..., None]


def _heads(x: Tensor, attention: SamAttention) -> Tensor:
    return x.unflatten(-1, (attention.num_attention_heads, -1))
