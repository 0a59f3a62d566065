"""The training stream: equal batch counts for every rank, every sample once per epoch, exact resume."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from clim_data.batches import BACKGROUNDS, Draw, build_batch
from clim_data.mosaics import MosaicBatch, MosaicConfig
from clim_data.report import BrokenSample, SkipReport, check_on_error
from clim_data.sources import SampleStore, Sources, epoch_order

STATE_VERSION = 1


def global_steps(n: int, global_batch: int, world_size: int, *, drop_last: bool = False) -> list[tuple[int, int]]:
    """Cut n samples into the (start, stop) ranges of the steps that all ranks take together.

    All steps have `global_batch` samples but the last. What is left is one smaller step; when it is less than one
    sample for each rank it joins the step before, whose ranks then have one sample more at most. With
    `drop_last` it is lost, at most global_batch - 1 samples.
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
    """Range of one step that belongs to `rank`; shares differ by one sample at most."""
    size = stop - start
    return start + size * rank // world_size, start + size * (rank + 1) // world_size


class MosaicLoader:
    """Endless epochs of `MosaicBatch`es from webdataset shards.

    The order of the samples is a function of (seed, epoch); `rank` takes its share of every step; workers only decode.
    So the batches do not depend on the number of workers, and every rank has the same number of them. Captions, crops
    and backgrounds follow from (seed, epoch, sample).

    `iter(loader)` yields what is left of the current epoch, then the epoch advances; call it again for the next one.
    A broken sample makes its batch smaller. A batch in which nothing can be read raises, it never disappears.

    Args:
        sources: shard paths, globs, folders, or URLs (`https://...`, `s3://...`, `pipe:...`), braces allowed.
        batch_size: images per rank and step, before mosaics are laid out.
        mosaic: layout and sizes.
        seed: of order, captions and crops.
        rank, world_size: of this process.
        workers: decoding processes; 0 decodes in this one.
        on_error: "skip" names broken samples in `skipped`, "raise" raises.
        shuffle: False keeps the order of the shards, for every epoch.
        drop_last: drop an incomplete last step (see `global_steps`); by default nothing is lost.
        background: what shows through transparent pixels, "white" or "random" (a colour for each image and epoch).
        cache_folder: where remote shards and large indexes are kept.
        cache_shards: remote shards in use at a time, also the window of their shuffle.

    Raises:
        ValueError: an option is out of range, or there are fewer samples than ranks.
        FileNotFoundError: a source matches nothing.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        batch_size: int,
        mosaic: MosaicConfig | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        on_error: str = "skip",
        shuffle: bool = True,
        drop_last: bool = False,
        background: str = "white",
        cache_folder: str | None = None,
        cache_shards: int = 16,
    ):
        if background not in BACKGROUNDS:
            raise ValueError(f"background={background!r} is not known: use one of {BACKGROUNDS}")
        least = {"batch_size": 1, "workers": 0, "cache_shards": 1, "seed": 0}
        given = {"batch_size": batch_size, "workers": workers, "cache_shards": cache_shards, "seed": seed}
        for name, low in least.items():
            value = given[name]
            if not isinstance(value, int) or value < low:
                raise ValueError(f"{name}={value!r} must be a whole number of at least {low}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank={rank} must be at least 0 and below world_size={world_size}")
        self.batch_size, self.rank, self.world_size, self.workers = batch_size, rank, world_size, workers
        self.seed, self.drop_last = seed, drop_last
        store = SampleStore(
            sources, on_error=check_on_error(on_error), cache_folder=cache_folder, cache_shards=cache_shards
        )
        self.skipped: SkipReport = store.skipped
        window = cache_shards if store.remote else None
        self._batches = _Batches(store, mosaic or MosaicConfig(), seed, (shuffle, window), background, on_error)
        self._fingerprint = store.fingerprint()
        self.epoch, self._consumed = 0, 0
        if not self._steps(0):
            least = batch_size * world_size if drop_last else world_size
            raise ValueError(
                f"{len(store)} usable samples are too few: {world_size} ranks need at least {least}; "
                f"give more shards or fewer ranks ({self.skipped.summary()})"
            )

    @property
    def num_samples(self) -> int:
        """Samples in all shards; those that turn out to be broken when decoded are still counted."""
        return len(self._batches.store)

    def __len__(self) -> int:
        """Batches of a whole epoch, the same number on every rank."""
        return len(self._steps(0))

    def __iter__(self) -> Iterator[MosaicBatch]:
        steps, epoch = self._steps(self._consumed), self.epoch
        shares = [(epoch, *rank_share(*step, self.rank, self.world_size)) for step in steps]
        # Its own generator: the workers' seeds must not be drawn from the one that training uses.
        decoded = DataLoader(
            self._batches,
            batch_size=None,
            sampler=shares,
            num_workers=self.workers,
            generator=torch.Generator().manual_seed(self.seed),
        )
        for (start, stop), (batch, faults) in zip(steps, decoded, strict=True):
            self.skipped.extend(faults)
            if faults and self._batches.on_error == "raise":
                raise faults[0]
            if batch is None:
                raise ValueError(
                    f"no sample of the batch at {start} in epoch {epoch} on rank {self.rank} can be read: "
                    f"{self.skipped.summary(3)}; remove these samples from the shards (see `clim-data pack`)"
                )
            self._consumed = stop
            if stop == steps[-1][1]:
                self.epoch, self._consumed = epoch + 1, 0
            yield batch

    def state_dict(self) -> dict:
        """Position in the stream after the last batch that was handed out: small, plain, equal on all ranks."""
        return {
            "version": STATE_VERSION,
            "epoch": self.epoch,
            "consumed": self._consumed,
            "seed": self.seed,
            "fingerprint": self._fingerprint,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue after the batch at which `state` was taken; nothing that is skipped is read or decoded.

        The position counts samples of all ranks, so another batch size or world size continues with the samples
        that are left (in other batches).

        Raises:
            ValueError: the state is of other shards, another seed or another version.
        """
        own = self.state_dict()
        for name in ("version", "seed", "fingerprint"):
            if state.get(name) != own[name]:
                raise ValueError(
                    f"the saved position has {name} {state.get(name)!r}, this loader {own[name]!r}: "
                    "resume with the shards and the seed of the interrupted run"
                )
        self.epoch, self._consumed = int(state["epoch"]), int(state["consumed"])
        if not self._steps(self._consumed):
            self.epoch, self._consumed = self.epoch + 1, 0

    def fingerprint(self) -> str:
        """16 hex digits that identify the shards (names, sizes, sample keys), wherever they are stored."""
        return self._fingerprint

    def _steps(self, consumed: int) -> list[tuple[int, int]]:
        left = self.num_samples - consumed
        steps = global_steps(left, self.batch_size * self.world_size, self.world_size, drop_last=self.drop_last)
        return [(start + consumed, stop + consumed) for start, stop in steps]


class _Batches(Dataset):
    """Map from (epoch, start, stop) to a batch and its faults: all that a worker process needs."""

    def __init__(
        self,
        store: SampleStore,
        config: MosaicConfig,
        seed: int,
        order: tuple[bool, int | None],
        background: str,
        on_error: str,
    ):
        self.store, self.config, self.seed, self.background, self.on_error = store, config, seed, background, on_error
        self.shuffle, self.window = order
        self._order: tuple[int, np.ndarray] | None = None

    def __getitem__(self, share: tuple[int, int, int]) -> tuple[MosaicBatch | None, list[BrokenSample]]:
        epoch, start, stop = share
        samples, faults = [], []
        for i in self._epoch_order(epoch)[start:stop]:
            try:
                samples.append(self.store.read(int(i)))
            except BrokenSample as fault:
                faults.append(fault)
        if faults and self.on_error == "raise":  # the main process raises: a worker's traceback would hide the name
            return None, faults
        batch, more = build_batch(samples, Draw(self.seed, epoch), self.config, background=self.background)
        return batch, faults + more

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            counts = [len(index) for index in self.store.indexes]
            order = np.arange(len(self.store))
            if self.shuffle:
                order = epoch_order(counts, seed=self.seed, epoch=epoch, window=self.window)
            self._order = (epoch, order)
        return self._order[1]
