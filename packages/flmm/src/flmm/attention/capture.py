"""Capture phrase rows of a language model's attention to the image, and its hidden states there.

Letters: L layers, H heads, N phrases (or tokens), T tokens of all phrases, C image columns, D
hidden width.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Protocol

import torch
from torch import Tensor, nn

from flmm.attention.rows import RowMask, attention_rows, listen, unlisten
from flmm.transformers_compat import decoder_parts

MERGES = ("mean", "max")

# The first and last position of a forward pass, and the device of its layer.
Pass = tuple[int, int, torch.device]


class Rows(Protocol):
    """The wanted positions of a batch item, and the way to merge their attention."""

    @property
    def expected(self) -> int | None:
        """Number N that has to be found, None for any."""
        ...

    def within(self, start: int, stop: int) -> Tensor:
        """List the wanted positions (R,) from `start` to `stop` (exclusive)."""
        ...

    def reduce(self, rows: Tensor) -> Tensor:
        """Merge the attention (H, R, C) of these positions to (H, N, C)."""
        ...


def merge_tokens(rows: Tensor, lengths: Sequence[int], merge: str) -> Tensor:
    """Merge rows (H, T, C) of the tokens of N phrases, phrase after phrase, to (H, N, C).

    Args:
        lengths: tokens of each phrase, at least one each; their sum is T.
        merge: "mean" (in float32, then rounded to the dtype) or "max" over the tokens of a phrase.
    """
    return _merge(rows, token_owners(lengths, rows.device), len(lengths), merge)


def token_owners(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Number the phrase (T,) that each token belongs to, for N phrases of these lengths."""
    return torch.repeat_interleave(torch.tensor(lengths, dtype=torch.long)).to(device)


def _merge(rows: Tensor, owners: Tensor, phrases: int, merge: str) -> Tensor:
    """Merge as `merge_tokens`, with the owners (T,) of the tokens on the device of the rows."""
    if merge == "max":
        lowest = rows.new_full((rows.shape[0], phrases, rows.shape[2]), float("-inf"))
        return lowest.scatter_reduce(1, owners[:, None].expand_as(rows), rows, "amax")
    belongs = owners == torch.arange(phrases, device=rows.device)[:, None]  # (N, T)
    weights = belongs / belongs.sum(1, keepdim=True)
    return (weights @ rows.float()).to(rows.dtype)


class PhraseRows:
    """The words of phrases, merged for each phrase.

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
                f"phrases {empty} have no token in the sequence; skip them or check their text"
            )
        self.lengths = [len(p) for p in phrases]
        self.positions = (
            torch.cat([p.long() for p in phrases]) if phrases else torch.zeros(0, dtype=torch.long)
        )
        self.merge = merge
        self.expected = len(phrases)
        self._owners: Tensor | None = None

    def within(self, start: int, stop: int) -> Tensor:
        """List the positions of the phrases between `start` and `stop`: all of them or none."""
        inside = (self.positions >= start) & (self.positions < stop)
        if inside.any() and not inside.all():
            raise ValueError(
                f"phrases lie partly outside the positions {start} to {stop} of one forward pass; "
                "pass prompt and phrases in one forward"
            )
        return self.positions[inside]

    def reduce(self, rows: Tensor) -> Tensor:
        """Merge the tokens (H, T, C) of each phrase to (H, N, C)."""
        if rows.shape[1] == 0:
            return rows

        # Stored from layer to layer, because each copy of numbers to a GPU waits for it.
        if self._owners is None or self._owners.device != rows.device:
            self._owners = token_owners(self.lengths, rows.device)
        return _merge(rows, self._owners, len(self.lengths), self.merge)


class UnmergedRows(PhraseRows):
    """The words of phrases, phrase after phrase, each word by itself."""

    def __init__(self, phrases: Sequence[Tensor]):
        super().__init__(phrases)
        self.expected = len(self.positions)

    def reduce(self, rows: Tensor) -> Tensor:
        """Return the rows as they are."""
        return rows


class TokenRows:
    """Every token from position `first` on, each by itself: the answer after a prompt of that
    length."""

    expected: int | None = None

    def __init__(self, first: int):
        self.first = first

    def within(self, start: int, stop: int) -> Tensor:
        """List the positions from `first` on."""
        return torch.arange(min(max(start, self.first), stop), stop)

    def reduce(self, rows: Tensor) -> Tensor:
        """Return the rows as they are."""
        return rows


class Capture:
    """A context that captures forward passes of a language model, also those of `generate`.

        with Capture(language_model, rows=[PhraseRows(...)], columns=[image_positions]) as capture:
            language_model(...)
        maps, states = capture.maps(0), capture.states(0)

    Args:
        language_model: a transformers decoder (`.layers[i].self_attn`, `.norm`) that runs
            `use_rows_attention`.
        rows: one for each batch item.
        columns: for each batch item, (C,) positions of its image tokens.

    Rows are computed from the queries, keys and mask that the model's own attention gets. So they
    follow it in padding on either side, grouped heads, sliding windows, a cache and gradient
    checkpointing.

    Raises:
        ValueError: the model's attention cannot be captured, or, on leaving, no forward pass had
            the wanted rows.
    """

    def __init__(
        self, language_model: nn.Module, *, rows: Sequence[Rows], columns: Sequence[Tensor]
    ):
        if len(rows) != len(columns):
            raise ValueError(
                f"{len(rows)} items of rows and {len(columns)} of columns; pass one of each per "
                "sequence"
            )
        decoder = decoder_parts(language_model)
        self.attentions = decoder.attentions
        self.outputs = decoder.outputs
        self.rows = list(rows)
        self.columns = list(columns)

        # The key is the first position of a pass, so a pass that gradient checkpointing repeats
        # overwrites itself.
        self._maps: dict[tuple[int, int], dict[int, Tensor]] = defaultdict(dict)
        self._states: dict[tuple[int, int], dict[int, Tensor]] = defaultdict(dict)
        self._spans: dict[int, tuple[int, int]] = {}
        self._placed: dict[int, tuple[Pass, Tensor, Tensor]] = {}
        self._stops: list[Callable[[], None]] = []

    def __enter__(self) -> "Capture":
        try:
            for layer, module in enumerate(self.attentions):
                listen(module, layer, self)
                self._stops.append(partial(unlisten, module))
            for layer, module in enumerate(self.outputs):
                hook = module.register_forward_hook(self._state_hook(layer))
                self._stops.append(hook.remove)
        except ValueError:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
        if kind is None:
            self._check_heard()

    def _close(self) -> None:
        while self._stops:
            self._stops.pop()()

    def on_attention(self, layer: int, query: Tensor, key: Tensor, mask: RowMask) -> None:
        """Take the query (B, H, Q, d) and key (B, G, K, d) of a layer's attention."""
        queries, keys = query.shape[2], key.shape[2]
        if query.shape[0] != len(self.rows):
            raise ValueError(
                f"a batch of {query.shape[0]} sequences for {len(self.rows)} items of rows; pass "
                "one item for each sequence"
            )

        # A pass over a whole sequence begins anew; others continue from the cache.
        whole = queries == keys and queries > 1
        start = 0 if whole else self._spans.get(layer, (0, 0))[1]
        stop = start + queries
        self._spans[layer] = (start, stop)
        dropped = max(0, stop - keys)  # keys that a sliding window's cache has forgotten

        for item, rows in enumerate(self.rows):
            positions, columns = self._place(item, start, stop, query.device)
            weights = attention_rows(query, key, mask, item=item, rows=positions)
            if dropped:
                present = weights[..., (columns - dropped).clamp(min=0)]
                seen = present.masked_fill(columns < dropped, 0)
            else:
                seen = weights[..., columns]
            self._maps[layer, item][start] = rows.reduce(seen)  # (H, N, C)

    def _place(
        self, item: int, start: int, stop: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Find the wanted rows of a pass, counted from `start`, and the columns, on `device`."""
        now = (start, stop, device)
        placed = self._placed.get(item)
        if placed is None or placed[0] != now:
            # Copied once for each pass, not for each layer.
            rows = self.rows[item].within(start, stop) - start
            placed = (now, rows.to(device), self.columns[item].to(device))
            self._placed[item] = placed
        return placed[1], placed[2]

    def _state_hook(self, layer: int) -> Callable[[nn.Module, tuple, Tensor], None]:
        def keep(module: nn.Module, args: tuple, output: Tensor) -> None:
            start, stop = self._spans[layer]
            for item in range(len(self.rows)):
                positions, _ = self._place(item, start, stop, output.device)
                self._states[layer, item][start] = output[item][positions].detach()  # (T, D)

        return keep

    def maps(self, item: int) -> Tensor:
        """Return the attention (N, L * H, C) of a batch item, layer-major, in the model's dtype."""
        return torch.cat(self._per_layer(self._maps, item, dim=1)).transpose(0, 1)  # each (H, N, C)

    def states(self, item: int) -> Tensor:
        """Return the hidden states (L, T, D) of all wanted tokens in order.

        The embeddings are not among the layers, and the last layer's states are normed.
        """
        return torch.stack(self._per_layer(self._states, item, dim=0))

    def _per_layer(
        self, pieces: Mapping[tuple[int, int], dict[int, Tensor]], item: int, *, dim: int
    ) -> list[Tensor]:
        """Join the pieces of all passes for each layer, on the device of the first layer."""
        layers = []
        for layer in range(len(self.attentions)):
            by_start = pieces[layer, item]
            layers.append(torch.cat([by_start[start] for start in sorted(by_start)], dim=dim))
        return [joined.to(layers[0].device) for joined in layers]

    def _check_heard(self) -> None:
        for item, rows in enumerate(self.rows):
            for layer in range(len(self.attentions)):
                heard = [piece.shape[1] for piece in self._maps[layer, item].values()]
                if not heard or rows.expected not in (None, sum(heard)):
                    raise ValueError(
                        f"layer {layer} heard {sum(heard)} of {rows.expected or 'any'} phrases of "
                        f"sequence {item}; run the language model inside the capture, on the "
                        "sequence that the positions belong to"
                    )
