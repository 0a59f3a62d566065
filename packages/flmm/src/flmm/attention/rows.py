"""Rows of a language model's attention, computed next to its fast kernel.

`output_attentions=True` makes a model keep softmax(QK) of every token with every token. Grounding
needs a few rows of it (the words of the phrases) and a few columns (the image's tokens). This
module gives transformers an attention of its own: SDPA as before, plus those rows for the layers
that have a listener (`flmm.attention.capture`). Only where scores are capped, which SDPA cannot do,
it computes all rows.

Letters: B batch, H heads, G key-value heads, Q queries, K keys, R rows wanted, C columns wanted, d
head width.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from flmm.transformers_compat import (
    attention_in_use,
    check_transformers,
    choose_attention,
    register_attention,
    sdpa_attention,
)

ATTENTION_NAME = "flmm_rows"
_LISTENER = "_flmm_listener"


class Listener(Protocol):
    """A receiver of the queries and keys of an attention layer; see `listen`."""

    def on_attention(self, layer: int, query: Tensor, key: Tensor, mask: "RowMask") -> None: ...


class RowMask:
    """The keys that a query may see, for single rows of a batch.

    Args:
        mask: the mask that the attention was given: (B, 1 or H, Q, K) bool (True is visible) or
            float (added), or None.
        causal: with `mask` None, a query sees keys up to its own position.
        scaling: factor of the scores.
        cap: scores become cap * tanh(score / cap) before they are masked (Gemma 2); None: they
            stay.
    """

    def __init__(
        self, mask: Tensor | None, *, causal: bool, scaling: float, cap: float | None = None
    ):
        self.mask = mask
        self.causal = causal
        self.scaling = scaling
        self.cap = cap

    def apply(self, scores: Tensor, item: int, rows: Tensor) -> Tensor:
        """Set scores (H, R, K) of hidden keys to -inf.

        Args:
            item: the batch item.
            rows: (R,) the query numbers.
        """
        if self.mask is not None:
            mask = self.mask[min(item, self.mask.shape[0] - 1), :, rows]  # (1 or H, R, K)
            if mask.dtype == torch.bool:
                return scores.masked_fill(~mask, float("-inf"))
            return scores + mask

        if self.causal:
            keys = torch.arange(scores.shape[-1], device=scores.device)
            return scores.masked_fill(keys > rows[:, None], float("-inf"))
        return scores


def attention_rows(query: Tensor, key: Tensor, mask: RowMask, *, item: int, rows: Tensor) -> Tensor:
    """Compute softmax(QK) of single rows over all keys, as unfused attention does.

    Args:
        query: (B, H, Q, d). key: (B, G, K, d), H a multiple of G.
        item: the batch item. rows: (R,) query numbers.

    Returns:
        (H, R, K) in the dtype of `query`: scores in that dtype, softmax in float32, rounded to that
        dtype. A frozen model in bfloat16 thus gives the attention that its trained mask heads have
        seen.
    """
    heads, groups, width = query.shape[1], key.shape[1], query.shape[3]
    wanted = query[item][:, rows]  # (H, R, d)

    # The heads that share a key-value head are more rows of one matrix product.
    grouped = wanted.reshape(groups, heads // groups * len(rows), width)
    products = grouped @ key[item].transpose(1, 2)
    scores = products.reshape(heads, len(rows), key.shape[2]) * mask.scaling  # (H, R, K)
    if mask.cap is not None:
        scores = torch.tanh(scores / mask.cap) * mask.cap

    weights = torch.softmax(mask.apply(scores, item, rows), dim=-1, dtype=torch.float32)
    return weights.to(query.dtype)


def rows_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Run transformers' SDPA attention, and hand queries and keys to the layer's listener."""
    scaling, causal = kwargs.get("scaling"), kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    mask = RowMask(
        attention_mask,
        causal=causal and query.shape[2] > 1,
        scaling=query.shape[3] ** -0.5 if scaling is None else scaling,
        cap=kwargs.get("softcap"),
    )
    if mask.cap is None:
        output = sdpa_attention(module, query, key, value, attention_mask, **kwargs)
    else:
        output = whole_attention(query, key, value, mask), None

    entry = module.__dict__.get(_LISTENER)
    if entry is not None:
        layer, listener = entry
        with torch.no_grad():
            listener.on_attention(layer, query, key, mask)
    return output


def whole_attention(query: Tensor, key: Tensor, value: Tensor, mask: RowMask) -> Tensor:
    """Compute unfused attention, for scores that SDPA cannot cap.

    Returns:
        (B, Q, H, d), as transformers' attention functions.
    """
    every = torch.arange(query.shape[2], device=query.device)
    shared = query.shape[1] // value.shape[1]  # heads of a key-value head
    outputs = []
    for item, values in enumerate(value.repeat_interleave(shared, dim=1)):
        weights = attention_rows(query, key, mask, item=item, rows=every)  # (H, Q, K)
        nothing = weights.isnan().all(-1, keepdim=True)  # padding on the left sees no key at all
        outputs.append(weights.masked_fill(nothing, 0) @ values)
    return torch.stack(outputs).transpose(1, 2)


def listen(module: nn.Module, layer: int, listener: Listener) -> None:
    """Hand every call of an attention layer to `listener` until `unlisten`.

    Raises:
        ValueError: the layer does not run our attention (the listener would never be called), or it
            has a listener already.
    """
    used = attention_in_use(module)
    if used != ATTENTION_NAME:
        raise ValueError(
            f"layer {layer} ({type(module).__name__}) runs attn_implementation={used!r}, whose "
            "attention cannot be captured; call flmm.use_rows_attention(language_model) after "
            "building it"
        )
    if _LISTENER in module.__dict__:
        raise ValueError(f"layer {layer} is being captured already; leave that capture first")
    module.__dict__[_LISTENER] = (layer, listener)


def unlisten(module: nn.Module) -> None:
    """Stop handing calls of an attention layer to its listener."""
    module.__dict__.pop(_LISTENER, None)


def use_rows_attention(language_model: nn.Module) -> None:
    """Make a transformers model run our attention: SDPA, whose rows can be captured.

    Raises:
        ValueError: transformers is too old, or the model does not go through its attention
            interface.
    """
    check_transformers()
    register_attention(ATTENTION_NAME, rows_attention)  # the second time changes nothing
    choose_attention(language_model, ATTENTION_NAME)
