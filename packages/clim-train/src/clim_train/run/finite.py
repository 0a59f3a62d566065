"""Losses and weights that are not finite: found without waiting for the device in every step, named
exactly."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from clim_data.processes import Ranks, gather_objects
from torch import Tensor

from clim_train.run.peers import AgreedError

_NEVER = 2**62


class NotFiniteError(AgreedError, ArithmeticError):
    """A loss or weight is nan or infinite. The message has step, ranks, keys of the batch and last
    good checkpoint.

    Attributes:
        step: optimizer step (from 1) of the first such loss.
        keys: rank -> keys of the batch of that step, for the ranks that had it.
    """

    def __init__(self, what: str, step: int, keys: dict[int, list[str]], last_good: Path | None):
        batches = "; ".join(
            f"rank {rank}, batch of {', '.join(names)}" for rank, names in keys.items()
        )
        kept = (
            f"{last_good} is the last good checkpoint"
            if last_good
            else "no checkpoint was written before"
        )
        super().__init__(
            f"{what} at step {step} ({batches}). Nothing was saved since: {kept}. Look at these "
            "samples, or start a "
            "new run with a lower optim.lr or with optim.clip_norm"
        )
        self.step, self.keys = step, keys


class FiniteWatch:
    """Keeps, on the device, which micro-batch had the first loss that is not finite, and on the
    host, their keys.

    `add` queues three tiny operations and waits for nothing; `check` waits once. It has to be
    called before every checkpoint, and often enough that the keys in between are no burden.
    """

    def __init__(self) -> None:
        self._first: Tensor | None = None
        self._seen: list[tuple[int, list[str]]] = []

    def add(self, step: int, loss: Tensor, batch: Any) -> None:
        """The loss of one micro-batch of optimizer step `step` (from 1) on this rank."""
        index = len(self._seen)
        self._seen.append((step, batch_keys(batch, index)))
        # Filled on the device: `torch.where` with two numbers would copy them there and wait.
        first = torch.full((), index, dtype=torch.int64, device=loss.device)
        first.masked_fill_(loss.detach().reshape(()).isfinite(), _NEVER)
        self._first = first if self._first is None else torch.minimum(self._first, first)

    def check(self, last_good: Path | None) -> None:
        """Raises NotFiniteError on all ranks if a loss since the last check was not finite on one.
        Collective."""
        if self._first is None:
            return
        mine = int(self._first)
        first = self._first.clone()
        if not Ranks.of_group().is_single:
            dist.all_reduce(first, dist.ReduceOp.MIN)
        if int(first) != _NEVER:
            step, keys = self._seen[int(first)]
            found = gather_objects(keys if mine == int(first) else None)
            raise NotFiniteError("the loss is not finite", step, _by_rank(found), last_good)
        self._first, self._seen = (
            None,
            [entry for entry in self._seen if entry[0] == self._seen[-1][0]],
        )

    def check_weights(self, finite: Tensor, last_good: Path | None) -> None:
        """Raises NotFiniteError on all ranks if `finite` (a bool of the device) is False on one.
        Collective.

        The losses were checked: so it was the last update that broke the weights, and its batches
        are named.
        """
        flag = finite.to(torch.int64)
        if not Ranks.of_group().is_single:
            dist.all_reduce(flag, dist.ReduceOp.MIN)
        if not int(flag):
            step = self._seen[-1][0] if self._seen else 0
            keys = [key for of, names in self._seen if of == step for key in names]
            raise NotFiniteError(
                "weights are not finite after the update",
                step,
                _by_rank(gather_objects(keys)),
                last_good,
            )


def batch_keys(batch: Any, index: int) -> list[str]:
    """Names of the samples of a batch: its `keys`, as an attribute or an entry; else its place
    since the last check."""
    keys = batch.get("keys") if isinstance(batch, Mapping) else getattr(batch, "keys", None)
    if isinstance(keys, list | tuple):
        return [str(key) for key in keys]
    return [f"number {index} since the last check"]


def _by_rank(keys: list[list[str] | None]) -> dict[int, list[str]]:
    return {rank: names for rank, names in enumerate(keys) if names is not None}
