"""Things of composed scenes named one by one, as users name them who ground their phrases."""

from dataclasses import dataclass, replace

import numpy as np
from clim_data import GroundingSample, PanopticNarratives, SkipReport
from clim_data.readers import PanopticMasks


@dataclass(frozen=True)
class ListedThings:
    """Narratives as expressions: some of the phrases of a scene, in any order and without the words
    between them.

    Which ones and in what order depends on (seed, epoch, number) only.
    """

    narratives: PanopticNarratives
    seed: int = 0

    @property
    def skipped(self) -> SkipReport:
        return self.narratives.skipped

    def __len__(self) -> int:
        return len(self.narratives)

    def stamp(self) -> str:
        return f"listed {self.seed} {self.narratives.stamp()}"

    def __getitem__(self, number: int) -> GroundingSample:
        return self.at(number, epoch=0)

    def at(self, number: int, *, epoch: int) -> GroundingSample:
        """Sample of one epoch; BrokenSample as the narratives."""
        sample = self.narratives.at(number, epoch=epoch)
        rng = np.random.default_rng((self.seed, epoch, number))
        count = len(sample.phrases)
        order = rng.permutation(count)[: rng.integers(1, count + 1)].tolist()
        phrases = tuple(sample.phrases[index] for index in order)
        masks = sample.mask_source
        assert isinstance(masks, PanopticMasks)  # as narratives have them
        masks = replace(masks, segment_ids=tuple(phrase.objects for phrase in phrases))
        segments = tuple((phrase.text, index) for index, phrase in enumerate(phrases))
        return replace(
            sample, kind="expressions", segments=segments, phrases=phrases, mask_source=masks
        )
