"""The three grounders side by side on the demo LMM: trained heads, its own boxes, its attention."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from clim_data import GroundingSample
from clim_eval import MaskScores, narrative_scores

from flmm.experiments.heads import add_scores, true_masks
from flmm.grounded import GroundedLMM
from flmm.grounders.attention import AttentionGrounder
from flmm.grounders.box import BoxGrounder
from flmm.grounders.chosen_heads import choose_heads
from flmm.grounders.grounder import Grounder
from flmm.grounders.heads import HeadsGrounder
from flmm.refiners.refiner import Refiner

SCENES_PER_PASS = 8
# Writing answers takes long, and one scene after the other shows the same.
SCENES_FOR_BOXES = 16


@dataclass(frozen=True)
class GrounderFigures:
    """The result of one grounder. scores: see `clim_eval.narrative_scores`. seconds: for a phrase.
    phrases: their number. unanswered: number of phrases with a useless answer."""

    scores: dict[str, float]
    seconds: float
    phrases: int
    unanswered: int = 0


def compare_grounders(
    model: GroundedLMM,
    refiner: Refiner,
    *,
    choose_on: Sequence[GroundingSample],
    test: Sequence[GroundingSample],
) -> dict[str, GrounderFigures]:
    """Measure {"heads", "attention", "box"} on the same scenes; boxes on the first few.

    Args:
        model: with trained heads.
        refiner: as it was pretrained, given boxes alone; see `flmm.grounders.box_refiner`.
        choose_on: scenes that attention heads are chosen on.
        test: scenes to measure on.
    """
    attention = AttentionGrounder(model.lmm, refiner, choose_heads(model.lmm, choose_on))
    boxes = BoxGrounder(model.lmm, refiner)
    figures = {
        "heads": measure_grounder(HeadsGrounder(model), test),
        "attention": measure_grounder(attention, test),
    }
    found = measure_grounder(boxes, test[:SCENES_FOR_BOXES])
    unanswered = boxes.take_unanswered().total
    figures["box"] = GrounderFigures(found.scores, found.seconds, found.phrases, unanswered)
    return figures


def measure_grounder(grounder: Grounder, scenes: Sequence[GroundingSample]) -> GrounderFigures:
    """Ground the phrases of scenes in batches, and score the masks."""
    of_samples = grounder.for_samples()
    scores, seconds, phrases = MaskScores(), 0.0, 0
    for first in range(0, len(scenes), SCENES_PER_PASS):
        part = scenes[first : first + SCENES_PER_PASS]
        prepared = [of_samples.prepare(scene, scene.load_image()) for scene in part]
        begin = time.perf_counter()
        found = of_samples(prepared)
        seconds += time.perf_counter() - begin
        for scene, masks in zip(part, found, strict=True):
            phrases += len(scene.phrases)
            add_scores(scores, scene, masks.masks, true_masks(scene))
    return GrounderFigures(narrative_scores(scores), seconds / phrases, phrases)


def grounders_note(figures: dict[str, GrounderFigures]) -> str:
    """Describe the time of a phrase, and the demo LMM's answers to questions for boxes."""
    times = ", ".join(f"{name} {1000 * one.seconds:.0f} ms" for name, one in figures.items())
    box = figures["box"]
    return (
        f"A phrase took {times}. The demo LMM was never taught to write boxes: of its answers "
        f"about {box.phrases} phrases {box.unanswered} have none, and what has no box gets no mask."
    )
