"""The randomness of a sample in a stream, and the background of transparent pixels."""

import hashlib
import random
from dataclasses import dataclass

from clim_data.pixels.decode import WHITE
from clim_data.sources.shards import RawSample

BACKGROUNDS = ("white", "random")


@dataclass(frozen=True)
class SampleRandom:
    """Random generators of an epoch: each follows from its seed, its number and a sample's name.

    `step` numbers the batches of an epoch, for decisions about a whole batch: it is the number of
    samples that all ranks used before. It is the same on all ranks.
    """

    seed: int
    epoch: int
    step: int = 0

    def rng(self, sample: str, purpose: str) -> random.Random:
        """Make a generator for one decision about one sample, on any rank and in any worker."""
        text = f"{self.seed}/{self.epoch}/{purpose}/{sample}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return random.Random(int.from_bytes(digest, "big"))


def check_background(background: str) -> str:
    """Return `background` when it is one of BACKGROUNDS, else raise ValueError."""
    if background not in BACKGROUNDS:
        raise ValueError(f"background={background!r} is not known: use one of {BACKGROUNDS}")
    return background


def background_colour(
    sample: RawSample, draw: SampleRandom, background: str
) -> tuple[int, int, int]:
    """Return the colour under transparent pixels: white, or one for the sample and the epoch."""
    if background == "white":
        return WHITE
    rng = draw.rng(sample.name, "background")
    return int(rng.random() * 256), int(rng.random() * 256), int(rng.random() * 256)
