"""SAM's mask decoder for many phrases in one pass, on the modules and weights of transformers.

SAM and its successors have the same two-way transformer.

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
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flmm.refiners.sam.kinds import SamKind, output_tokens, steadier
from flmm.refiners.sam.masks import pixels_of_parts, read_fine_masks, read_masks, to_map

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
    bias: (D,). positions: (1, P, D), the positional encoding of the grid (h, w). details: as
    `details_of_phrases` makes them, (N, ...) or (1, ...).
    """

    features: Tensor
    channels: Tensor
    weight: Tensor
    bias: Tensor
    positions: Tensor
    grid: tuple[int, int]
    details: tuple[Tensor, ...] = ()

    def parts(self) -> Iterator[Tensor]:
        """Yield embedding plus prompt, (N, p, D), part by part."""
        for features, channels in zip(_split(self.features), _split(self.channels), strict=True):
            yield F.linear(channels, self.weight, self.bias) + features

    def with_positions(self, parts: Iterable[Tensor]) -> Iterator[Part]:
        """Add the positional encoding to `parts` (N, p, D), which may come from a later layer."""
        for values, encoding in zip(parts, _split(self.positions), strict=True):
            yield Part(values, values + encoding)


@dataclass(frozen=True)
class MaskChoice:
    """The masks of a phrase to read.

    multimask: the three candidates instead of the single mask. steady: SAM 2's single mask may give
    way to the best candidate, see `steadier`.
    """

    multimask: bool = False
    steady: bool = False


def decode(
    decoder: Any,
    kind: SamKind,
    image: PromptedImage,
    *,
    sparse: Tensor,
    present: Tensor,
    choice: MaskChoice,
) -> tuple[Tensor, Tensor]:
    """Decode the masks of N phrases.

    Args:
        decoder: the `mask_decoder` of a SAM of this kind.
        sparse: (N, S, D) prompt tokens.
        present: bool (N, S), False for tokens that fill up the batch.

    Returns:
        Logits (N, K, 4h, 4w) of the square, and predicted IoU (N, K).
    """
    outputs, iou_at = output_tokens(decoder, kind)
    outputs = outputs.expand(len(sparse), -1, -1)
    tokens = torch.cat([outputs, sparse.to(outputs.dtype)], dim=1)  # (N, T, D)
    present = F.pad(present, (outputs.shape[1], 0), value=True)  # (N, T)

    # The single mask is 0, the candidates follow.
    count = len(decoder.output_hypernetworks_mlps)
    wanted = slice(1, None) if choice.multimask else slice(0, None if choice.steady else 1)
    masks = range(count)
    chosen = wanted
    if not torch.is_grad_enabled():
        # With gradients every mask is computed to the end: the weights of the others then train
        # with a gradient of zero, and every rank has the same set of gradients.
        masks = masks[wanted]
        chosen = slice(None)

    # The last attention serves only the tokens that are read after it.
    read = [iou_at, *(iou_at + 1 + i for i in masks)]
    if kind.hq:
        read.append(iou_at + 1 + count)
    queries, parts = _transform(decoder.transformer, image, tokens, present=present, read=read)

    weights = []
    for place, i in enumerate(masks):
        weights.append(decoder.output_hypernetworks_mlps[i](queries[:, 1 + place]))  # (N, D / 8)
    mask_weights = torch.stack(weights, dim=1)[:, chosen]  # (N, K, D / 8)

    pixels = pixels_of_parts(decoder, parts, image.details if kind.finer else ())
    if kind.hq:
        pixels = [torch.cat(list(pixels), dim=1)]
    logits = to_map(read_masks(pixels, mask_weights), image.grid)  # (N, K, 4h, 4w)
    if kind.hq:
        fine = decoder.hq_mask_mlp(queries[:, -1:])
        (early,) = image.details
        (whole,) = pixels
        logits = logits + read_fine_masks(decoder, whole, fine, early=early, grid=image.grid)

    ious = decoder.iou_prediction_head(queries[:, 0])[:, wanted]
    if choice.steady and not choice.multimask:
        return steadier(decoder, logits, ious)
    return logits, ious


def _transform(
    transformer: Any, image: PromptedImage, tokens: Tensor, *, present: Tensor, read: list[int]
) -> tuple[Tensor, list[Tensor]]:
    """Run the two-way transformer on tokens (N, T, D).

    Returns:
        Those that are `read`, (N, len(read), D), and the parts (N, p, D) of the image.
    """
    queries = tokens
    parts: Iterable[Tensor] = image.parts()
    for block in transformer.layers:
        located = image.with_positions(parts)
        queries, parts = _two_way(block, queries, located, tokens=tokens, present=present)

    final = transformer.final_attn_token_to_image
    located = image.with_positions(parts)
    attended, last = tokens_read_image(final, (queries + tokens)[:, read], located)
    queries = transformer.layer_norm_final_attn(queries[:, read] + attended)
    return queries, [part.values for part in last]


def _split(positions: Tensor) -> tuple[Tensor, ...]:
    """Cut (N, P, C) into parts (N, p, C); an accelerator takes all positions at once."""
    on_cpu = positions.device.type == "cpu"
    return positions.split(POSITIONS_AT_ONCE if on_cpu else positions.shape[1], dim=1)


def _two_way(
    block: Any,
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
    attention: Any, tokens: Tensor, values: Tensor, *, present: Tensor
) -> Tensor:
    """Attend from tokens (N, T, D) to those that are `present`, bool (N, T); values (N, T, D)."""
    q = _heads(attention.q_proj(tokens), attention).transpose(1, 2)  # (N, H, T, d)
    k = _heads(attention.k_proj(tokens), attention).transpose(1, 2)
    v = _heads(attention.v_proj(values), attention).transpose(1, 2)

    visible = present[:, None, None]  # (N, 1, 1, T)
    read = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=attention.scaling)
    return _out(attention)(read.transpose(1, 2).flatten(2))


def tokens_read_image(
    attention: Any, tokens: Tensor, image: Iterable[Part]
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
    return _out(attention)(read + attention.v_proj.bias), parts


def image_reads_tokens(
    attention: Any,
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
    out = _out(attention).weight.unflatten(1, (heads, -1))  # (D, H, d)
    written = torch.einsum("nthd,chd->nhtc", v, out).flatten(1, 2)  # (N, H T, D)
    # The weights of each head sum to 1, so each head carries its part of the bias with the values.
    written = written + _out(attention).bias / heads

    for part in image:
        scores = torch.bmm(folded, part.keys.transpose(1, 2)) + offsets  # (N, H T, p)
        weights = scores.unflatten(1, (heads, -1)).softmax(2).flatten(1, 2)
        yield torch.baddbmm(part.values, weights.transpose(1, 2), written)


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


def _heads(x: Tensor, attention: Any) -> Tensor:
    return x.unflatten(-1, (attention.num_attention_heads, -1))


def _out(attention: Any) -> nn.Linear:
    """Return the last projection of an attention, which transformers names in two ways."""
    projection: nn.Linear = attention.o_proj if hasattr(attention, "o_proj") else attention.out_proj
    return projection
