"""How much a frozen LMM expects each token of a phrase, where it reads or writes the phrase.

An LMM that sees a frog gives "frog" a high probability after "a". One that sees none does not, even
though it reads on.

Letters: T tokens, D hidden width, V words of the vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

COLUMNS = 3
"""Numbers of `token_chances` for each token."""
_LOWEST = -50.0  # log-probability of a token that cannot come next
_TOKENS_AT_ONCE = 32  # V numbers each


@contextmanager
def listen_to_states(
    norm: nn.Module, positions: Sequence[Tensor] | None = None
) -> Iterator[list[Tensor]]:
    """Collect the states (T, D) that the vocabulary layer reads, while the language model runs.

    Args:
        norm: the last norm of the language model.
        positions: (T,) of each batch item; the list then gets the states of each item. None is for
            `generate` with one prompt: each pass adds the state (1, D) that writes the next token.
    """
    states: list[Tensor] = []

    def collect(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        if positions is None:
            states.append(output[0, -1:].detach())
            return
        for item, wanted in enumerate(positions):
            states.append(output[item][wanted.to(output.device)].detach())

    hook = norm.register_forward_hook(collect)
    try:
        yield states
    finally:
        hook.remove()


@torch.no_grad()
def token_chances(
    vocabulary: nn.Module, states: Tensor, ids: Tensor, *, cap: float | None = None
) -> Tensor:
    """Compute what the LMM thinks of tokens before it reads them -> float32 (T, 3).

    The columns are the log-probability of the token, the same less the log-probability of the most
    likely token, and the entropy of the next token (in nats).

    Args:
        vocabulary: the layer from states (T, D) to logits (T, V).
        states: (T, D), each at the position before its token.
        ids: (T,) of the tokens.
        cap: logits x become cap * tanh(x / cap), as in Gemma.
    """
    weight = next(vocabulary.parameters())
    rows = []
    for part, wanted in zip(states.split(_TOKENS_AT_ONCE), ids.split(_TOKENS_AT_ONCE), strict=True):
        logits = vocabulary(part.to(weight.device, weight.dtype)).float()  # (T, V)
        if cap is not None:
            logits = cap * (logits / cap).tanh()
        logs = logits.log_softmax(-1)
        own = logs.gather(1, wanted.to(weight.device)[:, None])[:, 0].clamp(min=_LOWEST)
        entropy = torch.special.entr(logs.exp()).sum(-1)
        rows.append(torch.stack([own, own - logs.amax(-1), entropy], 1))
    if not rows:
        return states.new_zeros(0, COLUMNS, dtype=torch.float32)
    return torch.cat(rows).to(states.device)
