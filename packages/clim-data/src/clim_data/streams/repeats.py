"""Repeat factors: images with rare classes come several times in each epoch.

Source: LVIS, arXiv 1908.03195, appendix B; rounded up, so that every epoch is equally long.
"""

import hashlib
from dataclasses import replace

import numpy as np

from clim_data.faults import SkipReport
from clim_data.sources.shards import RawSample
from clim_data.sources.store import SampleStore


def repeat_factors(
    owners: np.ndarray, labels: np.ndarray, images: int, threshold: float
) -> np.ndarray:
    """Compute how often each image comes in an epoch.

    A class on a share f of the images has the factor max(1, sqrt(threshold / f)). An image has the
    largest factor of its classes, rounded up.

    Args:
        owners: int64 (N,), image of each box.
        labels: int64 (N,), class of each box.
        images: n, the number of images.
        threshold: share of images below which a class is repeated.

    Returns:
        int64 (n,), at least 1.
    """
    pairs = np.unique(np.stack([owners, labels], axis=1), axis=0)
    on_images = np.bincount(pairs[:, 1], minlength=int(labels.max(initial=0)) + 1)
    of_class = np.sqrt(threshold * images / np.maximum(on_images, 1))

    factors = np.ones(images)
    np.maximum.at(factors, pairs[:, 0], of_class[pairs[:, 1]])
    # A factor of 2 may come out a rounding above it.
    return np.ceil(factors - 1e-9).astype(np.int64)


class RepeatedSamples:
    """The samples of a store, each as often as its factor says; for an `EpochLoader`.

    The repetitions of a sample have different `copy` numbers, so that they are augmented
    differently.

    Args:
        store: the samples; none may be removed from it afterwards.
        factors: int64 (len(store),), at least 1.

    Attributes:
        owners: int64 (len(self),), number of each sample in the store.
    """

    def __init__(self, store: SampleStore, factors: np.ndarray):
        self.store = store
        self.on_error = store.on_error
        self.shuffle_window = store.shuffle_window
        self._ends = np.cumsum(factors)
        self.owners = np.repeat(np.arange(len(factors)), factors)
        edges = np.concatenate([[0], self._ends])[store.starts]
        self.counts: list[int] = np.diff(edges).tolist()

    @property
    def skipped(self) -> SkipReport:
        """Samples that cannot be used."""
        return self.store.skipped

    def __len__(self) -> int:
        return len(self.owners)

    def read(self, number: int) -> RawSample:
        """Read one sample; its `number` is its place in the store."""
        owner = int(self.owners[number])
        return replace(self.store.read(owner), copy=int(self._ends[owner]) - 1 - number)

    def fingerprint(self) -> str:
        """Return 16 hex digits that change with the samples, their order and their factors."""
        text = f"{self.store.fingerprint()}|".encode() + self._ends.tobytes()
        return hashlib.sha256(text).hexdigest()[:16]
