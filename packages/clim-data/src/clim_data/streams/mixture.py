"""The samples of each step of a stream of several sources: a fixed number of each source.

All images of a step are of one group, upright or wide, so that a batch has little padding. Each
group of each source is an endless stream: one permutation of its samples after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

# Groups of images: narrower than high, and all others.
UPRIGHT, WIDE = 0, 1
GROUPS = (UPRIGHT, WIDE)

Drawn = tuple[tuple[int, ...], ...]
"""Samples that all ranks used so far, of each source, group by group."""


def is_wide(sizes: np.ndarray) -> np.ndarray:
    """Tell which images are as wide as high or wider: (n, 2) height and width -> bool (n,)."""
    found: np.ndarray = sizes[:, 1] >= sizes[:, 0]
    return found


@dataclass(frozen=True)
class Mixture:
    """The samples of each step, a pure function of the options and of the numbers of samples drawn
    before.

    Args:
        wide: bool (n_i,) of each source, see `is_wide`. Where a source has no image of one group,
            groups do not count: all images are one.
        per_rank: samples of each source in a step of one rank.
        seed: of everything.
        original: draw as the released code of CLIM's detectors: every source has the same seed, so
            two sources of the same images give the same images in every step.

    Raises:
        ValueError: not one number per source, or a source without samples.
    """

    wide: Sequence[np.ndarray]
    per_rank: Sequence[int]
    seed: int
    original: bool = False
    _permutations: dict[tuple[int, int], list[np.ndarray]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if len(self.wide) != len(self.per_rank):
            raise ValueError(f"{len(self.wide)} sources and numbers {list(self.per_rank)}")
        if not all(map(len, self.wide)) or min(self.per_rank) < 1:
            raise ValueError(
                f"sources of {list(map(len, self.wide))} samples, {list(self.per_rank)} of each in "
                "a step: leave out sources without samples"
            )

    @cached_property
    def members(self) -> list[list[np.ndarray]]:
        """Sample numbers of each group of each source."""
        parts = [[np.flatnonzero(~wide), np.flatnonzero(wide)] for wide in self.wide]
        if all(len(upright) and len(wide) for upright, wide in parts):
            return parts
        return [[np.array([], dtype=np.int64), np.arange(len(wide))] for wide in self.wide]

    @property
    def shares(self) -> np.ndarray:
        """The probability of each group: its fraction of all samples of all sources, float64
        (2,)."""
        counts = np.zeros(len(GROUPS))
        for upright, wide in self.members:
            counts += (len(upright), len(wide))
        found: np.ndarray = counts / counts.sum()
        return found

    def start(self) -> Drawn:
        """Return the numbers of samples drawn before the first step: zeros."""
        return tuple((0,) * len(self.per_rank) for _ in GROUPS)

    def groups(self, steps: int) -> np.ndarray:
        """Draw the groups of the first steps: int64 (steps,), the same for any number of them."""
        if self.original:
            return np.random.RandomState(self.seed).choice(len(GROUPS), size=steps, p=self.shares)
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed])))
        return (rng.random(steps) >= self.shares[UPRIGHT]).astype(np.int64)

    def after(self, drawn: Drawn, group: int, world_size: int) -> Drawn:
        """Return the numbers of samples drawn after a step of a group."""
        row = tuple(
            count + number * world_size
            for count, number in zip(drawn[group], self.per_rank, strict=True)
        )
        return tuple(row if place == group else drawn[place] for place in GROUPS)

    def numbers(self, drawn: Drawn, group: int, rank: int, world_size: int) -> list[np.ndarray]:
        """Return the sample numbers of one rank in a step, source by source.

        Args:
            drawn: numbers of samples drawn before the step.
            group: of the step.
            rank, world_size: the ranks take turns, one sample each.
        """
        found = []
        for source, number in enumerate(self.per_rank):
            first = drawn[group][source]
            places = first + rank + world_size * np.arange(number)
            found.append(self._stream(source, group, places))
        return found

    def _stream(self, source: int, group: int, places: np.ndarray) -> np.ndarray:
        """Return the samples at some places of the endless stream of a group of a source."""
        members = self.members[source][group]
        rounds, inside = np.divmod(places, len(members))
        orders = [self._permutation(source, group, int(one)) for one in rounds]
        return members[[order[place] for order, place in zip(orders, inside, strict=True)]]

    def _permutation(self, source: int, group: int, number: int) -> np.ndarray:
        """Return the permutation of a round; the last ones are remembered."""
        count = len(self.members[source][group])
        if self.original:
            key = (count, 0)
            if number >= len(self._permutations.setdefault(key, [])):
                # torch's generator goes on from round to round.
                generator = torch.Generator().manual_seed(self.seed)
                rounds = [torch.randperm(count, generator=generator) for _ in range(number + 1)]
                self._permutations[key] = [order.numpy() for order in rounds]
            return self._permutations[key][number]

        key = (source * len(GROUPS) + group, number)
        if key not in self._permutations:
            for old in [one for one in self._permutations if one[0] == key[0]][:-1]:
                del self._permutations[old]
            sequence = np.random.SeedSequence([self.seed, source, group, number])
            order = np.random.Generator(np.random.PCG64(sequence)).permutation(count)
            self._permutations[key] = [order]
        return self._permutations[key][0]
