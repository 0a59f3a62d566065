"""Losses and weights that are not finite: named exactly, without a wait for the device in each
step."""

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
    """A loss or weight is nan or infinite.

    The message has step, ranks, keys of the batch and the last good checkpoint.

    Attributes:
        step: optimizer step (from 1) of the first such loss.
        keys: rank -> keys of the batch of that step, for the ranks that had it.
    """

    def __init__(
        self, what: str, step: int, keys: dict[int, list[str]], last_good: Path | None
    ) -> None:
        batches = []
        for rank, names in keys.items():
            batch = f"batch of {', '.join(names)}" if names else "no samples"
            batches.append(f"rank {rank}, {batch}")
        saved = "no checkpoint was written before"
        if last_good is not None:
            saved = f"{last_good} is the last good checkpoint"
        super().__init__(
            f"{what} at step {step} ({'; '.join(batches)}). Nothing was saved since: {saved}. Look "
            "at these samples, or start a new run with a lower optim.lr or with optim.clip_norm"
        )
        self.step = step
        self.keys = keys


class FiniteWatch:
    """Remembers which micro-batch had the first loss that is not finite.

    The number of the micro-batch is on the device, the keys of its samples are on the host. `add`
    queues three tiny operations and waits for nothing; `check` waits once. Call `check` before
    every checkpoint, and often enough that the keys in between do not fill the memory.
    """

    def __init__(self) -> None:
        self._first: Tensor | None = None
        self._seen: list[tuple[int, list[str]]] = []

    def add(self, step: int, loss: Tensor, batch: Any) -> None:
        """Note the loss of one micro-batch of optimizer step `step` (from 1) on this rank."""
        index = len(self._seen)
        self._seen.append((step, batch_keys(batch, index)))

        # Filled on the device: `torch.where` with two numbers would copy them there and wait.
        first = torch.full((), index, dtype=torch.int64, device=loss.device)
        first.masked_fill_(loss.detach().reshape(()).isfinite(), _NEVER)
        self._first = first if self._first is None else torch.minimum(self._first, first)

    def check(self, last_good: Path | None) -> None:
        """Raise NotFiniteError on all ranks where one had a loss that is not finite. Collective.

        Only losses since the last check count.
        """
        if self._first is None:
            return

        own = int(self._first)
        first = self._first.clone()
        if not Ranks.of_group().is_single:
            dist.all_reduce(first, dist.ReduceOp.MIN)
        if int(first) != _NEVER:
            step, keys = self._seen[int(first)]
            found = gather_objects(keys if own == int(first) else None)
            raise NotFiniteError("the loss is not finite", step, _by_rank(found), last_good)

        # The last step stays: `check_weights` names its batches.
        last_step = self._seen[-1][0]
        self._first = None
        self._seen = [entry for entry in self._seen if entry[0] == last_step]

    def check_weights(self, finite: Tensor, last_good: Path | None) -> None:
        """Raise NotFiniteError on all ranks where `finite` is False on one. Collective.

        The losses were checked before, so the last update broke the weights: its batches are named.

        Args:
            finite: a bool of the device.
        """
        flag = finite.to(torch.int64)
        if not Ranks.of_group().is_single:
            dist.all_reduce(flag, dist.ReduceOp.MIN)
        if int(flag):
            return

        step = self._seen[-1][0] if self._seen else 0
        keys = []
        for seen_step, names in self._seen:
            if seen_step == step:
                keys += names
        found = _by_rank(gather_objects(keys))
        raise NotFiniteError("weights are not finite after the update", step, found, last_good)


def batch_keys(batch: Any, index: int) -> list[str]:
    """Return the names of a batch's samples, or the batch's place since the last check.

    Names are its `keys`, an attribute or an entry.
    """
    keys = batch.get("keys") if isinstance(batch, Mapping) else getattr(batch, "keys", None)
    if isinstance(keys, list | tuple):
        return [str(key) for key in keys]
    return [f"number {index} since the last check"]


def _by_rank(keys: list[list[str] | None]) -> dict[int, list[str]]:
    return {rank: names for rank, names in enumerate(keys) if names is not None}
