"""Batches for training the heads, from any number of grounding data sets together."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, Unpack

from clim_data import BrokenSample, GroundingSample, SampleRandom, SkipReport
from clim_data.streams import EpochLoader, StreamKeywords, StreamOptions, choose_stream

from flmm.adapters.frozen import FrozenLMM
from flmm.refiners.square import Square
from flmm.samples import GroundingBatch, GroundingItem, SampleMaker, training_item
from flmm.text.prompts import DESCRIBE
from flmm.training.feature_cache import FeatureCache


class GroundingData(Protocol):
    """Samples by number and epoch: `clim_data.PanopticNarratives`,
    `clim_data.ReferringExpressions`, or a user-defined data set like them."""

    @property
    def skipped(self) -> SkipReport:
        """Samples that cannot be used."""
        ...

    def __len__(self) -> int: ...

    def at(self, number: int, *, epoch: int) -> GroundingSample:
        """Return a sample of one epoch, a function of its arguments; BrokenSample when it cannot be
        used."""
        ...

    def stamp(self) -> str:
        """Return a text that changes with the samples and their order."""
        ...


@dataclass(frozen=True)
class Place:
    """Sample `number` of data set `source`."""

    source: str
    number: int


class GroundingSources:
    """Several data sets one after another, as the store of an `EpochLoader`.

    `skipped` names the samples that each of them skips.
    """

    shuffle_window = None

    def __init__(self, sources: Mapping[str, GroundingData], *, on_error: str):
        if not sources:
            raise ValueError("no grounding data: give at least one data set")

        self.sources = dict(sources)
        self.on_error = on_error
        self.counts = [len(data) for data in self.sources.values()]
        self._places = [(name, data) for name, data in self.sources.items()]
        self.skipped = SkipReport()
        for name, data in self.sources.items():
            for fault in data.skipped.faults:
                self.skipped.add(BrokenSample(fault.reason, f"{name}/{fault.name}", fault.detail))

    def __len__(self) -> int:
        return sum(self.counts)

    def read(self, number: int) -> Place:
        """Return the place of a sample. `GroundingBuilder`, which knows the epoch, reads it."""
        for (name, _), count in zip(self._places, self.counts, strict=True):
            if number < count:
                return Place(name, number)
            number -= count
        raise IndexError(f"sample {number} is beyond the last one")

    def fingerprint(self) -> str:
        """Return 16 hex digits that change with the data sets, their samples and their order."""
        stamps = "\n".join(
            f"{name}|{len(data)}|{data.stamp()}" for name, data in self.sources.items()
        )
        return hashlib.sha256(stamps.encode()).hexdigest()[:16]


class GroundingBuilder:
    """Decodes and prepares the samples of one batch, in a loading process."""

    def __init__(
        self,
        sources: Mapping[str, GroundingData],
        makers: Mapping[str, SampleMaker],
        *,
        square: Square,
        cache: FeatureCache | None,
    ):
        self.sources = dict(sources)
        self.makers = dict(makers)
        self.square = square
        self.cache = cache

    def __call__(
        self, places: list[Place], draw: SampleRandom
    ) -> tuple[GroundingBatch, list[BrokenSample]]:
        """Build a batch, which can be empty.

        Returns:
            The batch, and the faults of samples that cannot be used.
        """
        items, faults = [], []
        for place in places:
            try:
                items.append(self._item(place, draw.epoch))
            except BrokenSample as fault:
                faults.append(
                    BrokenSample(fault.reason, f"{place.source}/{fault.name}", fault.detail)
                )
        return GroundingBatch(tuple(items)), faults

    def _item(self, place: Place, epoch: int) -> GroundingItem:
        sample = self.sources[place.source].at(place.number, epoch=epoch)
        key = f"{place.source}/{sample.key}"
        kept = self.cache.find(key, sample) if self.cache is not None else None
        if kept is not None:
            return kept
        return training_item(self.makers[place.source], sample, key=key, square=self.square)


class GroundingLoader(EpochLoader[GroundingBatch]):
    """Endless epochs of `GroundingBatch`es from several data sets, concatenated and shuffled
    together.

    The order is a function of (seed, epoch), every rank has the same number of batches, and
    `state_dict` continues exactly (see `clim_data.streams.epochs.EpochLoader`). Samples that cannot
    be used (no phrase, an image or mask that cannot be read, more text than the LMM's context
    holds) make a batch smaller, down to an empty one, and are named in `skipped`.

    Args:
        sources: name -> data set; the name goes before the keys of its samples.
        lmm: its family and tokenizer prepare the samples; the model itself stays in this process.
        square: the refiner's input, `Refiner.square`.
        requests: questions of data sets that have their own (default: `prompts.DESCRIBE`).
        cache: features that need not be computed again.
        stream, keywords: as in `clim_data.MosaicLoader`. The data sets read their images
            themselves, so `background`, `max_pixels` and the cache of shards have no effect here.

    Raises ValueError when an option is out of range, or for requests to unknown data sets.
    """

    def __init__(
        self,
        sources: Mapping[str, GroundingData],
        lmm: FrozenLMM,
        *,
        square: Square,
        requests: Mapping[str, str] | None = None,
        cache: FeatureCache | None = None,
        stream: StreamOptions | None = None,
        **keywords: Unpack[StreamKeywords],
    ):
        stream = choose_stream(stream, keywords)
        requests = dict(requests or {})
        if unknown := sorted(set(requests) - set(sources)):
            raise ValueError(
                f"requests for unknown data sets {unknown}: the data sets are {', '.join(sources)}"
            )
        makers = {name: SampleMaker(lmm, request=requests.get(name, DESCRIBE)) for name in sources}
        prompts = "|".join(f"{name}:{maker.prompt}" for name, maker in makers.items())
        self._cache = cache
        super().__init__(
            GroundingSources(sources, on_error=stream.on_error),
            GroundingBuilder(sources, makers, square=square, cache=cache),
            stream,
            build_stamp=prompts,
        )

    def __iter__(self) -> Iterator[GroundingBatch]:
        if self._cache is not None:
            # Before the workers start, so that they know what earlier epochs stored.
            self._cache.refresh()
        return super().__iter__()
