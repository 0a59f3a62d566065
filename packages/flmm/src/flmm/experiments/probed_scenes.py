"""Present and absent phrases about composed scenes.

Easy absent phrases name a kind of thing that the scene lacks, as a phrase of another scene would.
Hard ones are close to a present thing: two of a thing that occurs once, or a kind of the same
family (an animal for an animal, an object for an object).
"""

from collections.abc import Iterator

import numpy as np
from clim_data import GroundingSample, PanopticNarratives, Phrase
from clim_data.drawings import noun_phrase, plural

from flmm.demo.scenes import CONCEPTS, PAIRS
from flmm.training.presence import EASY, HARD, PRESENT, Probe, ProbedImage

ANIMALS = frozenset(["bear", "elephant", "frog", "penguin", "pig"])
EASY_PHRASES = 2
LONGEST_TEXT = 3


def probed_scenes(scenes: PanopticNarratives, *, seed: int) -> Iterator[ProbedImage]:
    """Yield the scenes with their own phrases and absent ones, in texts of one to three phrases.

    The absent phrases and their texts depend on (seed, number of the scene) only.
    """
    for number in range(len(scenes)):
        rng = np.random.default_rng((seed, number))
        sample = scenes[number]
        image, masks = sample.load()
        probes = [
            Probe(phrase.text, PRESENT, mask)
            for phrase, mask in zip(sample.phrases, masks, strict=True)
        ]
        probes += absent_probes(sample, rng)

        order = rng.permutation(len(probes))
        texts: list[tuple[Probe, ...]] = []
        while len(order):
            count = int(rng.integers(1, LONGEST_TEXT + 1))
            texts.append(tuple(probes[place] for place in order[:count]))
            order = order[count:]
        yield ProbedImage(image, tuple(texts))


def absent_probes(sample: GroundingSample, rng: np.random.Generator) -> list[Probe]:
    """Draw two easy absent phrases of a scene, and one or two hard ones."""
    counts = {name: 2 if phrase.is_plural else 1 for name, phrase in _kinds_of_phrases(sample)}
    absent = [name for name in CONCEPTS if name not in counts]
    probes = []
    for place in rng.permutation(len(absent))[:EASY_PHRASES]:
        count = 2 if rng.random() < PAIRS / 2 else 1
        probes.append(Probe(noun_phrase(absent[place], count), EASY))

    single = [name for name, count in counts.items() if count == 1]
    if single and rng.random() < 0.5:
        probes.append(Probe(noun_phrase(single[rng.integers(len(single))], 2), HARD))
    families = {name in ANIMALS for name in counts}
    siblings = [name for name in absent if (name in ANIMALS) in families]
    if siblings:
        probes.append(Probe(noun_phrase(siblings[rng.integers(len(siblings))], 1), HARD))
    return probes


def _kinds_of_phrases(sample: GroundingSample) -> Iterator[tuple[str, Phrase]]:
    """Yield the kind of each phrase of a scene, and the phrase."""
    forms = {form: name for name in CONCEPTS for form in (name, plural(name))}
    for phrase in sample.phrases:
        yield forms[phrase.text.split()[-1]], phrase
