"""SAM's mask decoder for many phrases in one pass, on the modules and weights of transformers' `SamMaskDecoder`.

Letters: N phrases, S prompt tokens (padded), T = S + output tokens, P = h x w positions of the image embedding,
D channels, H heads, d channels of a head, K masks of a phrase.

A dozen tokens meet 4096 positions. Where transformers projects every position of every phrase to keys, values and
queries, here the projections are multiplied into the tokens: q . (W x) = (W^T q) . x. The numbers are the same, no
projected image is made, and the positions are read where they lie. Phrases have different numbers of tokens; those
that only fill up the batch are masked wherever tokens are attended to, so they change nothing.
Source: SAM, arXiv 2304.02643, appendix A.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamAttention, SamMaskDecoder, SamTwoWayAttentionBlock

# Every position becomes 16 pixels of 32 channels: so many positions at a time fit into the cache of a CPU.
UPSCALED_AT_ONCE = 1024


def decode(
    decoder: SamMaskDecoder, image: Tensor, positions: Tensor, *, sparse: Tensor, present: Tensor, multimask: bool
) -> tuple[Tensor, Tensor]:
    """Masks of N phrases.

    Args:
        image: (N, D, h, w) embedding of each phrase's image plus its dense prompt.
        positions: (1, D, h, w) positional encoding of the grid.
        sparse: (N, S, D) prompt tokens.
        present: bool (N, S), False for tokens that fill up the batch.
        multimask: the three candidates instead of the single mask.

    Returns:
        Logits (N, K, 4h, 4w) and predicted IoU (N, K).
    """
    grid = image.shape[-2:]
    outputs = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(len(image), -1, -1)
    tokens = torch.cat([outputs, sparse.to(outputs.dtype)], dim=1)  # (N, T, D)
    present = F.pad(present, (outputs.shape[1], 0), value=True)  # (N, T)
    positions = positions.flatten(2).transpose(1, 2)  # (1, P, D)
    keys = image.flatten(2).transpose(1, 2).contiguous()  # (N, P, D)
    queries = tokens
    for block in decoder.transformer.layers:
        queries, keys = _two_way(block, queries, keys, tokens=tokens, positions=positions, present=present)
    final = decoder.transformer.final_attn_token_to_image
    attended = tokens_read_image(final, queries + tokens, keys + positions, keys)
    queries = decoder.transformer.layer_norm_final_attn(queries + attended)
    kept = slice(1, None) if multimask else slice(0, 1)
    # All hypernetworks run, also those of masks that are left out: they train with a gradient of zero, not without.
    weights = [mlp(queries[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
    masks = upscale(decoder, keys, torch.stack(weights, dim=1)[:, kept], grid)
    return masks, decoder.iou_prediction_head(queries[:, 0])[:, kept]


def _two_way(
    block: SamTwoWayAttentionBlock, queries: Tensor, keys: Tensor, *, tokens: Tensor, positions: Tensor, present: Tensor
) -> tuple[Tensor, Tensor]:
    """Tokens attend to each other and to the image, then the image to the tokens."""
    placed = queries if block.skip_first_layer_pe else queries + tokens
    attended = tokens_read_tokens(block.self_attn, placed, queries, present=present)
    queries = block.layer_norm1(attended if block.skip_first_layer_pe else queries + attended)
    placed_keys = keys + positions
    attended = tokens_read_image(block.cross_attn_token_to_image, queries + tokens, placed_keys, keys)
    queries = block.layer_norm2(queries + attended)
    queries = block.layer_norm3(queries + block.mlp(queries))
    read = image_reads_tokens(
        block.cross_attn_image_to_token, keys, placed_keys, tokens=queries + tokens, values=queries, present=present
    )
    return queries, block.layer_norm4(read)


def tokens_read_tokens(attention: SamAttention, tokens: Tensor, values: Tensor, *, present: Tensor) -> Tensor:
    """Self-attention of tokens (N, T, D) to those that are present (N, T), with values (N, T, D)."""
    q, k = (_heads(project(tokens), attention).transpose(1, 2) for project in (attention.q_proj, attention.k_proj))
    v = _heads(attention.v_proj(values), attention).transpose(1, 2)  # (N, H, T, d)
    read = F.scaled_dot_product_attention(q, k, v, attn_mask=present[:, None, None], scale=attention.scaling)
    return attention.out_proj(read.transpose(1, 2).flatten(2))


def tokens_read_image(attention: SamAttention, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of tokens (N, T, D) to positions: keys and values (N, P, D) -> (N, T, D)."""
    q = attention.scaling * _heads(attention.q_proj(tokens), attention)  # (N, T, H, d)
    folded, bias = _fold(q, attention.k_proj)  # (N, H T, D), (N, H T, 1)
    weights = torch.baddbmm(bias, folded, keys.transpose(1, 2)).softmax(-1)  # (N, H T, P)
    means = (weights @ values).unflatten(1, (attention.num_attention_heads, -1))  # (N, H, T, D)
    v_weight = attention.v_proj.weight.unflatten(0, (attention.num_attention_heads, -1))  # (H, d, D)
    read = torch.einsum("nhtc,hdc->nthd", means, v_weight).flatten(2)
    return attention.out_proj(read + attention.v_proj.bias)


def image_reads_tokens(
    attention: SamAttention, image: Tensor, placed: Tensor, *, tokens: Tensor, values: Tensor, present: Tensor
) -> Tensor:
    """`image` plus the attention of its positions `placed` (both (N, P, D)) to tokens and values (N, T, D)."""
    heads = attention.num_attention_heads
    k = attention.scaling * _heads(attention.k_proj(tokens), attention)  # (N, T, H, d)
    folded, bias = _fold(k, attention.q_proj)
    scores = torch.baddbmm(bias, folded, placed.transpose(1, 2)).unflatten(1, (heads, -1))  # (N, H, T, P)
    weights = scores.masked_fill(~present[:, None, :, None], float("-inf")).softmax(2)
    v = _heads(attention.v_proj(values), attention)
    out = attention.out_proj.weight.unflatten(1, (heads, -1))  # (D, H, d)
    # The weights of a head sum to 1, so that its share of the bias can travel with the values.
    written = torch.einsum("nthd,chd->nhtc", v, out).flatten(1, 2) + attention.out_proj.bias / heads  # (N, H T, D)
    return torch.baddbmm(image, weights.flatten(1, 2).transpose(1, 2), written)


def upscale(decoder: SamMaskDecoder, keys: Tensor, weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """Positions (N, P, D) to 4 x 4 pixels each, times the masks' weights (N, K, D / 8) -> logits (N, K, 4h, 4w).

    Transposed convolutions of stride and size 2 give every position four pixels of its own: linear maps, whose pixels
    are brought into place only at the end, where they are single numbers.
    """
    norm, masks = decoder.upscale_layer_norm, []
    for part in keys.split(UPSCALED_AT_ONCE, dim=1):
        x = _four_pixels(decoder.upscale_conv1, part)  # (N, P, 4, D / 4)
        x = decoder.activation(F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps))
        x = decoder.activation(_four_pixels(decoder.upscale_conv2, x))  # (N, P, 4, 4, D / 8)
        masks.append(x.flatten(1, 3) @ weights.transpose(1, 2))  # (N, P 4 4, K)
    (h, w), count = grid, weights.shape[1]
    masks = torch.cat(masks, dim=1).view(len(keys), h, w, 2, 2, 2, 2, count).permute(0, 7, 1, 3, 5, 2, 4, 6)
    return masks.reshape(len(keys), count, 4 * h, 4 * w)


def _four_pixels(conv: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """(..., C) -> (..., 4, c): top left, top right, bottom left, bottom right of each position."""
    channels = conv.out_channels
    weight = conv.weight.permute(2, 3, 1, 0).reshape(4 * channels, -1)  # (C, c, 2, 2) -> (4 c, C)
    return F.linear(x, weight, conv.bias.repeat(4)).unflatten(-1, (4, channels))


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
