"""One stream of several sources: fixed numbers of each in every step, exact resume."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from clim_data.faults import BrokenSample, SampleWarning, SkipReport
from clim_data.processes.workers import load_in_workers
from clim_data.streams.batches import TensorBatch
from clim_data.streams.captioned_batches import CaptionedBatch
from clim_data.streams.detection_batches import DetectionBatch
from clim_data.streams.draw import SampleRandom
from clim_data.streams.epochs import STATE_VERSION, SampleSource, check_same_data
from clim_data.streams.mixture import Drawn, Mixture
from clim_data.streams.options import StreamOptions


@dataclass(frozen=True)
class MixedPart:
    """One source of a `MixedLoader`.

    Attributes:
        name: the field of `MixedBatch` that its batches become.
        store: the samples.
        build: makes a batch of some samples, and names the unusable ones.
        per_rank: samples in a step of one rank.
        wide: bool (len(store),), see `is_wide`.
        stamp: what else the batches depend on.
    """

    name: str
    store: SampleSource[Any]
    build: Callable[[list[Any], SampleRandom], tuple[Any, list[BrokenSample]]]
    per_rank: int
    wide: np.ndarray
    stamp: str = ""


@dataclass(frozen=True)
class MixedBatch(TensorBatch):
    """The batches of one step.

    Attributes:
        boxes: images with boxes.
        captions: pictures with captions and tags, or None.
        mosaics: mosaics of such pictures, or None.
    """

    boxes: DetectionBatch
    captions: CaptionedBatch | None = None
    mosaics: CaptionedBatch | None = None

    def __len__(self) -> int:
        return len(self.boxes)


class MixedLoader:
    """Endless epochs of `MixedBatch`es.

    Every source is an endless stream of its own. An epoch ends when the first source was seen once,
    about: its length is the same on all ranks. Order, views and captions follow from (seed, step,
    sample), and workers only decode.

    A broken sample makes its batch smaller. A batch of boxes in which nothing can be read raises;
    one of captions or mosaics is None then.

    Args:
        parts: the sources; the images with boxes come first.
        stream: seed, ranks, workers and the rest; its batch size is not read.
        original: see `Mixture`.

    Raises:
        ValueError: a source has no samples, or fewer than a step needs of the first one.
    """

    def __init__(
        self, parts: Sequence[MixedPart], stream: StreamOptions, *, original: bool = False
    ):
        self.stream = stream
        self.skipped = SkipReport()
        for part in parts:
            self.skipped.extend([*part.store.skipped.faults, *part.store.skipped.warnings])
        self.mixture = Mixture(
            [part.wide for part in parts],
            [part.per_rank for part in parts],
            stream.seed,
            original=original,
        )
        self._steps = _Steps(parts, self.mixture, stream)
        stamps = [f"{part.name}|{part.store.fingerprint()}|{part.stamp}" for part in parts]
        text = "|".join([*stamps, str(original)])
        self._fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]

        self._per_step = parts[0].per_rank * stream.ranks.world_size
        self._length = len(parts[0].store) // self._per_step
        if not self._length:
            raise ValueError(
                f"{len(parts[0].store)} usable images with boxes are too few: a step of all ranks "
                f"takes {self._per_step}; give more data, or a smaller batch "
                f"({self.skipped.summary()})"
            )
        self.epoch, self._position = 0, 0
        self._step, self._drawn = 0, self.mixture.start()

    def __len__(self) -> int:
        """Return the steps of an epoch, the same number on every rank."""
        return self._length

    def __iter__(self) -> Iterator[MixedBatch]:
        todo = self._todo()
        decoded = load_in_workers(
            self._steps,
            [(step, group, drawn) for step, group, drawn, _ in todo],
            workers=self.stream.workers,
            seed=self.stream.seed,
        )
        try:
            for (step, _, _, after), (batches, faults) in zip(todo, decoded, strict=True):
                batch = self._checked(step, batches, faults)
                self._step, self._drawn = step + 1, after
                self._position += 1
                if self._position == len(self):
                    self.epoch, self._position = self.epoch + 1, 0
                yield batch
        finally:
            del decoded  # ends the workers at once, though an error may hold this frame for long

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch: small, plain, equal on all ranks."""
        return {
            "version": STATE_VERSION,
            "epoch": self.epoch,
            "position": self._position * self._per_step,  # images with boxes, of all ranks
            "step": self._step,
            "drawn": [list(row) for row in self._drawn],
            "seed": self.stream.seed,
            "fingerprint": self._fingerprint,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the batch at which `state` was taken.

        The position counts samples of all ranks, so another number of ranks continues with the
        samples that are left.

        Raises:
            ValueError: the state is of other data, another seed or another version.
        """
        check_same_data(state, self.state_dict(), "the data, the recipe and the seed")
        self.epoch = int(state["epoch"])
        self._position = int(state["position"]) // self._per_step
        if self._position >= len(self):
            self.epoch, self._position = self.epoch + 1, 0
        self._step = int(state["step"])
        self._drawn = tuple(tuple(map(int, row)) for row in state["drawn"])

    def fingerprint(self) -> str:
        """Return 16 hex digits that identify the data; where it is stored does not matter."""
        return self._fingerprint

    def _todo(self) -> list[tuple[int, int, Drawn, Drawn]]:
        """Return the remaining steps of the epoch: number, group, and the samples drawn before and
        after."""
        count = len(self) - self._position
        groups = self.mixture.groups(self._step + count)[self._step :].tolist()
        drawn, found = self._drawn, []
        for step, group in enumerate(groups, self._step):
            after = self.mixture.after(drawn, group, self.stream.ranks.world_size)
            found.append((step, group, drawn, after))
            drawn = after
        return found

    def _checked(
        self, step: int, batches: dict[str, Any], faults: list[BrokenSample]
    ) -> MixedBatch:
        self.skipped.extend(faults)
        broken = [fault for fault in faults if not isinstance(fault, SampleWarning)]
        if broken and self.stream.on_error == "raise":
            raise broken[0]
        if batches["boxes"] is None:
            raise ValueError(
                f"no image of step {step} on rank {self.stream.ranks.rank} can be read: "
                f"{self.skipped.summary(3)}; remove these images from the data"
            )
        return MixedBatch(**batches)


class _Steps(Dataset):
    """Map from (step, group, drawn before) to the batches of a step and their faults: all that a
    worker needs."""

    def __init__(self, parts: Sequence[MixedPart], mixture: Mixture, stream: StreamOptions):
        self.parts, self.mixture, self.stream = parts, mixture, stream

    def __getitem__(
        self, place: tuple[int, int, Drawn]
    ) -> tuple[dict[str, Any], list[BrokenSample]]:
        step, group, drawn = place
        numbers = self.mixture.numbers(drawn, group, *self.stream.ranks)
        batches: dict[str, Any] = {}
        faults: list[BrokenSample] = []
        for part, chosen in zip(self.parts, numbers, strict=True):
            samples = []
            for number in chosen.tolist():
                try:
                    samples.append(part.store.read(number))
                except BrokenSample as fault:
                    faults.append(fault)
            # Streams have no common epoch: the step tells the views of a sample apart.
            draw = SampleRandom(self.stream.seed, step, step)
            batches[part.name], more = part.build(samples, draw)
            faults += more
        return batches, faults
