"""Listens to a language model: phrase rows of its attention to the image, and of its hidden states,
and nothing else.

Letters: L layers, H heads, N phrases (or tokens), T tokens of all phrases, C image columns, D
hidden width.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from flmm.attention.rows import RowMask, attention_rows, listen, unlisten

MERGES = ("mean", "max")


class Rows(Protocol):
    """Which positions of a batch item are wanted, and what becomes of their attention."""

    expected: int | None
    """Number N that has to be found, None for any."""

    def within(self, start: int, stop: int) -> Tensor:
        """(R,) the wanted positions from `start` to `stop` (exclusive)."""
        ...

    def reduce(self, rows: Tensor) -> Tensor:
        """Attention (H, R, C) of these positions -> (H, N, C)."""
        ...


def merge_tokens(rows: Tensor, lengths: Sequence[int], merge: str) -> Tensor:
    """Rows (H, T, C) of the tokens of N phrases, one phrase after the other -> (H, N, C) in the
    same dtype.

    Args:
        lengths: tokens of each phrase, at least one each; their sum is T.
        merge: "mean" (in float32, then rounded to the dtype) or "max" over the tokens of a phrase.
    """
    return _merge(rows, token_owners(lengths, rows.device), len(lengths), merge)


def token_owners(lengths: Sequence[int], device: torch.device) -> Tensor:
    """(T,) the number of the phrase that each token belongs to, for N phrases of these lengths."""
    return torch.repeat_interleave(torch.tensor(lengths, dtype=torch.long)).to(device)


def _merge(rows: Tensor, owners: Tensor, phrases: int, merge: str) -> Tensor:
    """As `merge_tokens`, for tokens whose owners (T,) are on the device of the rows."""
    if merge == "max":
        lowest = rows.new_full((rows.shape[0], phrases, rows.shape[2]), float("-inf"))
        return lowest.scatter_reduce(1, owners[:, None].expand_as(rows), rows, "amax")
    belongs = owners == torch.arange(phrases, device=rows.device)[:, None]  # (N, T)
    weights = belongs / belongs.sum(1, keepdim=True)
    return (weights @ rows.float()).to(rows.dtype)


class PhraseRows:
    """The words of phrases, merged per phrase.

    Args:
        phrases: positions of each phrase's tokens in the (padded) sequence.
        merge: "mean" or "max" over the tokens of a phrase; a mean is rounded to the attention's
            dtype.

    Raises:
        ValueError: a phrase without tokens, or an unknown merge.
    """

    def __init__(self, phrases: Sequence[Tensor], merge: str = "mean"):
        if merge not in MERGES:
            raise ValueError(f"merge={merge!r}; legal values are 'mean' and 'max'")
        empty = [i for i, p in enumerate(phrases) if len(p) == 0]
        if empty:
            raise ValueError(
                f"phrases {empty} have no token in the sequence; leave them out or check their text"
            )
        self.lengths = [len(p) for p in phrases]
        self.positions = (
            torch.cat([p.long() for p in phrases]) if phrases else torch.zeros(0, dtype=torch.long)
        )
        self.merge = merge
        self.expected = len(phrases)
        self._owners: Tensor | None = None

    def within(self, start: int, stop: int) -> Tensor:
        inside = (self.positions >= start) & (self.positions < stop)
        if inside.any() and not inside.all():
            raise ValueError(
                f"phrases lie partly outside the positions {start} to {stop} of one forward pass; "
                "pass prompt and "
                "phrases in one forward"
            )
        return self.positions[inside]

    def reduce(self, rows: Tensor) -> Tensor:
        if rows.shape[1] == 0:
            return rows

        # Kept from layer to layer: a GPU is waited for whenever numbers are copied to it.
        if self._owners is None or self._owners.device != rows.device:
            self._owners = token_owners(self.lengths, rows.device)
        return _merge(rows, self._owners, len(self.lengths), self.merge)


class TokenRows:
    """Every token from position `first` on, each by itself: what a model generates after a prompt
    of that length."""

    expected = None

    def __init__(self, first: int):
        self.first = first

    def within(self, start: int, stop: int) -> Tensor:
        return torch.arange(min(max(start, self.first), stop), stop)

    def reduce(self, rows: Tensor) -> Tensor:
        return rows


class Capture:
    """Context in which forward passes (also those of `generate`) of a language model are listened
    to.

        with Capture(language_model, rows=[PhraseRows(...)], columns=[image_positions]) as capture:
            language_model(...)
        maps, states = capture.maps(0), capture.states(0)

    Args:
        language_model: a transformers decoder (`.layers[i].self_attn`, `.norm`) that runs
            `use_rows_attention`.
        rows: one for each batch item.
        columns: for each batch item, (C,) positions of its image tokens.

    Padding on either side, grouped heads, sliding windows, a cache and gradient checkpointing are
    what the model makes of them: rows are taken from the queries, keys and mask that its own
    attention gets.

    Raises:
        ValueError: the model's attention cannot be heard, or, on leaving, no forward pass had the
            wanted rows.
    """

    def __init__(
        self, language_model: nn.Module, *, rows: Sequence[Rows], columns: Sequence[Tensor]
    ):
        if len(rows) != len(columns):
            raise ValueError(
                f"{len(rows)} items of rows and {len(columns)} of columns; pass one of each per "
                "sequence"
            )
        self.attentions = [layer.self_attn for layer in language_model.layers]
        # The states after each layer but the last, and after the norm that follows the last.
        self.outputs = [*list(language_model.layers)[:-1], language_model.norm]
        self.rows, self.columns = list(rows), list(columns)
        # Kept by the position a pass began at: a pass that gradient checkpointing repeats
        # overwrites itself.
        self._maps: dict[tuple[int, int], dict[int, Tensor]] = defaultdict(dict)
        self._states: dict[tuple[int, int], dict[int, Tensor]] = defaultdict(dict)
        self._spans: dict[int, tuple[int, int]] = {}
        self._placed: dict[int, tuple[tuple, Tensor, Tensor]] = {}
        self._handles: list = []

    def __enter__(self) -> "Capture":
        try:
            for layer, module in enumerate(self.attentions):
                listen(module, layer, self)
                self._handles.append(_Unlisten(module))
            for layer, module in enumerate(self.outputs):
                self._handles.append(module.register_forward_hook(self._state_hook(layer)))
        except ValueError:
            self._close()
            raise
        return self

    def __exit__(self, kind, *_) -> None:
        self._close()
        if kind is None:
            self._check_heard()

    def _close(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    def on_attention(self, layer: int, query: Tensor, key: Tensor, mask: RowMask) -> None:
        """Called by the attention of a layer: query (B, H, Q, d), key (B, G, K, d)."""
        queries, keys = query.shape[2], key.shape[2]
        if query.shape[0] != len(self.rows):
            raise ValueError(
                f"a batch of {query.shape[0]} sequences for {len(self.rows)} items of rows; pass "
                "as many"
            )
        whole = queries == keys and queries > 1
        start = 0 if whole else self._spans.get(layer, (0, 0))[1]
        stop = start + queries
        self._spans[layer] = (start, stop)
        dropped = max(0, stop - keys)  # keys that a sliding window's cache has forgotten
        for item, rows in enumerate(self.rows):
            positions, columns = self._place(item, start, stop, query.device)
            weights = attention_rows(query, key, mask, item=item, rows=positions)
            if dropped:
                seen = weights[..., (columns - dropped).clamp(min=0)].masked_fill(
                    columns < dropped, 0
                )
            else:
                seen = weights[..., columns]
            self._maps[layer, item][start] = rows.reduce(seen)  # (H, N, C)

    def _place(
        self, item: int, start: int, stop: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Wanted rows of a pass, counted from `start`, and columns, on `device`; copied once a
        pass, not each layer."""
        now = (start, stop, device)
        if item not in self._placed or self._placed[item][0] != now:
            rows = self.rows[item].within(start, stop) - start
            self._placed[item] = (now, rows.to(device), self.columns[item].to(device))
        return self._placed[item][1:]

    def _state_hook(self, layer: int):
        def keep(module: nn.Module, args: tuple, output: Tensor) -> None:
            start, stop = self._spans[layer]
            for item in range(len(self.rows)):
                positions, _ = self._place(item, start, stop, output.device)
                self._states[layer, item][start] = output[item][positions].detach()  # (T, D)

        return keep

    def maps(self, item: int) -> Tensor:
        """(N, L * H, C) attention of batch item `item`, layer-major, in the model's dtype."""
        return torch.cat(self._per_layer(self._maps, item, dim=1)).transpose(0, 1)  # each (H, N, C)

    def states(self, item: int) -> Tensor:
        """(L, T, D) hidden states of all wanted tokens in order, without the embeddings; the last
        is normed."""
        return torch.stack(self._per_layer(self._states, item, dim=0))

    def _per_layer(self, kept: dict, item: int, *, dim: int) -> list[Tensor]:
        layers = [
            torch.cat([kept[layer, item][start] for start in sorted(kept[layer, item])], dim=dim)
            for layer in range(len(self.attentions))
        ]
        return [x.to(layers[0].device) for x in layers]

    def _check_heard(self) -> None:
        for item, rows in enumerate(self.rows):
            for layer in range(len(self.attentions)):
                heard = [piece.shape[1] for piece in self._maps[layer, item].values()]
                if not heard or rows.expected not in (None, sum(heard)):
                    raise ValueError(
                        f"layer {layer} heard {sum(heard)} of {rows.expected or 'any'} phrases of "
                        f"sequence {item}; run "
                        "the language model inside the capture, on the sequence that the positions "
                        "are of"
                    )


class _Unlisten:
    def __init__(self, module: nn.Module):
        self.module = module

    def remove(self) -> None:
        unlisten(self.module)
