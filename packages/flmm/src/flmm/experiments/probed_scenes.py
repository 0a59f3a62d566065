"""Present and absent phrases about composed scenes.

Easy absent phrases name a kind of thing that the scene lacks, as a phrase of another scene would.
Hard ones change one thing about a phrase that is there: its number ("two frogs" for one frog), its
side ("a frog top right" for one at the top left), or its kind for another of the same family (an
animal for an animal, an object for an object). Colours and sizes are not among them: the demo LMM
knows no word for either.
"""

from collections.abc import Iterator

import numpy as np
from clim_data import GroundingSample, PanopticNarratives, Phrase
from clim_data.drawings import noun_phrase, plural

from flmm.demo.scenes import COLUMNS, CONCEPTS, PAIRS, ROWS
from flmm.training.presence import EASY, HARD, PRESENT, Probe, ProbedImage

ANIMALS = frozenset(["bear", "elephant", "frog", "penguin", "pig"])
COUNT, SIDE, SIBLING = "count", "side", "sibling"
EASY_PHRASES = 2


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
        probes += side_probes(sample, masks, rng)

        yield ProbedImage.of(image, probes, rng)


def absent_probes(sample: GroundingSample, rng: np.random.Generator) -> list[Probe]:
    """Draw two easy absent phrases of a scene, and one or two hard ones: of another number, and of
    a sibling."""
    counts = {name: 2 if phrase.is_plural else 1 for name, phrase in _kinds_of_phrases(sample)}
    absent = [name for name in CONCEPTS if name not in counts]
    probes = []
    for place in rng.permutation(len(absent))[:EASY_PHRASES]:
        count = 2 if rng.random() < PAIRS / 2 else 1
        probes.append(Probe(noun_phrase(absent[place], count), EASY))

    single = [name for name, count in counts.items() if count == 1]
    if single and rng.random() < 0.5:
        text = noun_phrase(single[rng.integers(len(single))], 2)
        probes.append(Probe(text, HARD, change=COUNT))
    families = {name in ANIMALS for name in counts}
    siblings = [name for name in absent if (name in ANIMALS) in families]
    if siblings:
        text = noun_phrase(siblings[rng.integers(len(siblings))], 1)
        probes.append(Probe(text, HARD, change=SIBLING))
    return probes


def side_probes(
    sample: GroundingSample, masks: np.ndarray, rng: np.random.Generator
) -> list[Probe]:
    """Draw up to two phrases with a place, of things that are left or right and not in the centre:
    one where the thing is, and one on the opposite side. masks: bool (N, H, W) of the phrases.

    Both kinds are as frequent, so that a place alone tells nothing.
    """
    aside = []
    for (name, phrase), mask in zip(_kinds_of_phrases(sample), masks, strict=True):
        row, column = _third_of(mask)
        if not phrase.is_plural and column != 1:
            aside.append((noun_phrase(name, 1), row, column, mask))

    probes = []
    for kind in (PRESENT, HARD):
        if not aside or rng.random() < 0.5:
            continue
        text, row, column, mask = aside[rng.integers(len(aside))]
        if kind == PRESENT:
            probes.append(Probe(f"{text} {ROWS[row]} {COLUMNS[column]}", PRESENT, mask))
        else:
            probes.append(Probe(f"{text} {ROWS[row]} {COLUMNS[2 - column]}", HARD, change=SIDE))
    return probes


def _third_of(mask: np.ndarray) -> tuple[int, int]:
    """Return the (row, column) of the centre of a mask, in thirds of the picture."""
    centre = np.argwhere(mask).mean(0)
    row, column = (3 * centre / mask.shape).astype(int).clip(0, 2).tolist()
    return row, column


def _kinds_of_phrases(sample: GroundingSample) -> Iterator[tuple[str, Phrase]]:
    """Yield the kind of each phrase of a scene, and the phrase."""
    forms = {form: name for name in CONCEPTS for form in (name, plural(name))}
    for phrase in sample.phrases:
        yield forms[phrase.text.split()[-1]], phrase
