"""Epochs over a store of samples: equal batch counts for every rank, every sample once per epoch,
exact resume."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from torch.utils.data import Dataset

from clim_data.faults import BrokenSample, SampleWarning, SkipReport
from clim_data.processes.workers import load_in_workers
from clim_data.streams.draw import SampleRandom
from clim_data.streams.options import StreamOptions

STATE_VERSION = 1

Batch = TypeVar("Batch")
Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)
Built = tuple[Batch | None, list[BrokenSample]]


class SampleSource(Protocol[Item_co]):
    """Numbered samples that an `EpochLoader` reads, such as a `SampleStore`."""

    @property
    def skipped(self) -> SkipReport:
        """Samples that cannot be used."""
        ...

    @property
    def on_error(self) -> str:
        """Treatment of broken samples: "skip" or "raise"."""
        ...

    @property
    def counts(self) -> Iterable[int]:
        """Samples of each shard; their sum is the number of samples."""
        ...

    @property
    def shuffle_window(self) -> int | None:
        """Shards that are shuffled together, None for all; see `epoch_order`."""
        ...

    def __len__(self) -> int: ...

    def read(self, number: int) -> Item_co:
        """Read one sample; BrokenSample when it cannot be read."""
        ...

    def fingerprint(self) -> str:
        """Return 16 hex digits that change with the samples and their order."""
        ...


def global_steps(
    n: int, global_batch: int, world_size: int, *, drop_last: bool = False
) -> list[tuple[int, int]]:
    """Cut n samples into the (start, stop) ranges of the steps that all ranks take together.

    All steps have `global_batch` samples but the last. The rest is one smaller step. If it has less
    than one sample for each rank it joins the step before, whose ranks then have at most one sample
    more. With `drop_last` the rest is lost, at most global_batch - 1 samples.
    """
    edges = list(range(0, n - global_batch + 1, global_batch))
    steps = [(start, start + global_batch) for start in edges]
    done = len(steps) * global_batch
    if done == n or drop_last:
        return steps
    if n - done >= world_size:
        return [*steps, (done, n)]
    if not steps:
        return []
    return [*steps[:-1], (steps[-1][0], n)]


def rank_share(start: int, stop: int, rank: int, world_size: int) -> tuple[int, int]:
    """Return the range of one step that belongs to `rank`; shares differ by one sample at most."""
    size = stop - start
    return start + size * rank // world_size, start + size * (rank + 1) // world_size


class EpochLoader(Generic[Batch]):
    """Endless epochs of the batches that `build` makes of the samples of `store`.

    The order of the samples is a function of (seed, epoch); `rank` takes its share of every step;
    workers only decode. So the batches do not depend on the number of workers, and every rank has
    the same number of them.

    `iter(loader)` yields the rest of the current epoch, then the epoch advances; call it again for
    the next one. A broken sample makes its batch smaller. A batch in which nothing can be read
    raises, it never disappears. A worker that dies, or finds shared memory full, raises, too (see
    `load_in_workers`).

    Args:
        store: the samples; its `skipped` has skipped ones, and the loader adds to it.
        build: makes one batch of some samples, and names the unusable ones. It is pickled to the
            workers.
        stream: size of the batches, order, ranks and workers. `store` and `build` read the samples.
        build_stamp: what else the batches depend on (such as a file of boxes); part of
            `fingerprint()`.

    Raises:
        ValueError: there are fewer samples than ranks.
    """

    def __init__(
        self,
        store: SampleSource[Item],
        build: Callable[[list[Item], SampleRandom], Built],
        stream: StreamOptions,
        *,
        build_stamp: str = "",
    ):
        self.stream = stream
        self.skipped: SkipReport = store.skipped
        self._batches = _Batches(store, build, stream.seed, stream.shuffle)

        self._fingerprint = store.fingerprint()
        if build_stamp:
            self._fingerprint = hashlib.sha256(
                f"{self._fingerprint}|{build_stamp}".encode()
            ).hexdigest()[:16]

        self.epoch, self._consumed = 0, 0
        if not self._steps(0):
            world_size = stream.ranks.world_size
            least = stream.batch_size * world_size if stream.drop_last else world_size
            raise ValueError(
                f"{len(store)} usable samples are too few: {world_size} ranks need at least "
                f"{least}; give more data or fewer ranks ({self.skipped.summary()})"
            )

    @property
    def store(self) -> SampleSource[Any]:
        """The samples."""
        return self._batches.store

    @property
    def build(self) -> Callable[[list[Any], SampleRandom], Built]:
        """The function that makes a batch of some samples."""
        return self._batches.build

    @property
    def num_samples(self) -> int:
        """Number of samples of one epoch; samples that cannot be decoded are still counted."""
        return len(self._batches.store)

    def __len__(self) -> int:
        """Batches of a whole epoch, the same number on every rank."""
        return len(self._steps(0))

    def __iter__(self) -> Iterator[Batch]:
        steps, epoch = self._steps(self._consumed), self.epoch
        shares = [(epoch, step[0], *rank_share(*step, *self.stream.ranks)) for step in steps]

        decoded = load_in_workers(
            self._batches, shares, workers=self.stream.workers, seed=self.stream.seed
        )
        try:
            for (start, stop), (batch, faults) in zip(steps, decoded, strict=True):
                self.skipped.extend(faults)
                broken = [fault for fault in faults if not isinstance(fault, SampleWarning)]
                if broken and self._batches.store.on_error == "raise":
                    raise broken[0]
                if batch is None:
                    raise ValueError(
                        f"no sample of the batch at {start} in epoch {epoch} on rank "
                        f"{self.stream.ranks.rank} can be read: "
                        f"{self.skipped.summary(3)}; remove these samples from the data (see "
                        "`clim-data pack`)"
                    )
                self._consumed = stop
                if stop == steps[-1][1]:
                    self.epoch, self._consumed = epoch + 1, 0
                yield batch
        finally:
            del decoded  # ends the workers at once, though an error may hold this frame for long

    def state_dict(self) -> dict:
        """Return the position after the last batch: small, plain, equal on all ranks."""
        return {
            "version": STATE_VERSION,
            "epoch": self.epoch,
            "consumed": self._consumed,
            "seed": self.stream.seed,
            "fingerprint": self._fingerprint,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue after the batch at which `state` was taken; samples before it are not read.

        The position counts samples of all ranks, so another batch size or world size continues with
        the samples that are left (in other batches).

        Raises:
            ValueError: the state is of other data, another seed or another version.
        """
        check_same_data(state, self.state_dict(), "the shards and the seed")
        self.epoch, self._consumed = int(state["epoch"]), int(state["consumed"])
        if not self._steps(self._consumed):
            self.epoch, self._consumed = self.epoch + 1, 0

    def fingerprint(self) -> str:
        """Return 16 hex digits that identify the data (names, sizes, sample keys, boxes).

        Where the data is stored does not matter.
        """
        return self._fingerprint

    def _steps(self, consumed: int) -> list[tuple[int, int]]:
        world_size = self.stream.ranks.world_size
        steps = global_steps(
            self.num_samples - consumed,
            self.stream.batch_size * world_size,
            world_size,
            drop_last=self.stream.drop_last,
        )
        return [(start + consumed, stop + consumed) for start, stop in steps]


class _Batches(Dataset):
    """Map from (epoch, start of the step, start, stop) to a batch and its faults: all that a worker
    needs."""

    def __init__(
        self,
        store: SampleSource[Any],
        build: Callable[[list[Any], SampleRandom], Built],
        seed: int,
        shuffle: bool,
    ):
        self.store, self.build, self.seed, self.shuffle = store, build, seed, shuffle
        self._order: tuple[int, np.ndarray] | None = None

    def __getitem__(self, share: tuple[int, int, int, int]) -> Built:
        epoch, step, start, stop = share
        samples, faults = [], []
        for i in self._epoch_order(epoch)[start:stop]:
            try:
                samples.append(self.store.read(int(i)))
            except BrokenSample as fault:
                faults.append(fault)

        # The main process raises: a worker's traceback would hide the name.
        if faults and self.store.on_error == "raise":
            return None, faults

        batch, more = self.build(samples, SampleRandom(self.seed, epoch, step))
        return batch, faults + more

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            order = np.arange(len(self.store))
            if self.shuffle:
                window = self.store.shuffle_window
                order = epoch_order(self.store.counts, seed=self.seed, epoch=epoch, window=window)
            self._order = (epoch, order)
        return self._order[1]


def epoch_order(
    counts: Iterable[int], *, seed: int, epoch: int, window: int | None = None
) -> np.ndarray:
    """Draw the order of all samples in one epoch, a pure function of the arguments.

    Args:
        counts: number of samples of each shard.
        window: None shuffles all samples globally. A number shuffles the shards, cuts their list
            into windows of that many, and shuffles the samples inside each window, so that few
            shards are open at a time.
    """
    counts = np.asarray(list(counts), dtype=np.int64)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
    if window is None:
        return rng.permutation(int(counts.sum()))
    starts = np.cumsum(counts) - counts
    shards = rng.permutation(len(counts))
    order = []
    for first in range(0, len(shards), window):
        members = [
            np.arange(starts[s], starts[s] + counts[s]) for s in shards[first : first + window]
        ]
        order.append(rng.permutation(np.concatenate(members)))
    return np.concatenate(order)


def check_same_data(state: Mapping[str, Any], own: Mapping[str, Any], needed: str) -> None:
    """Raise ValueError if a saved position is of other data, another seed or another version.

    Args:
        state: the saved position.
        own: the loader's present position.
        needed: the options that must be as in the interrupted run, for the error.
    """
    for name in ("version", "seed", "fingerprint"):
        if state.get(name) != own[name]:
            raise ValueError(
                f"the saved position has {name} {state.get(name)!r}, this loader {own[name]!r}: "
                f"resume with {needed} of the interrupted run"
            )
