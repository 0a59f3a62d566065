"""Fitting and measuring the presence head on composed scenes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from clim_data import PanopticNarratives
from clim_eval.metrics import (
    Reliability,
    auroc,
    concept_scores,
    presence_accuracy,
    reliability,
    threshold_for,
)
from clim_train.experiments import aligned_table

from flmm.demo.scenes import CONCEPTS, compose_demo_scenes
from flmm.experiments.probed_scenes import probed_scenes
from flmm.grounded import GroundedLMM
from flmm.training.presence import (
    EASY,
    HARD,
    PRESENT,
    ProbedPhrases,
    fit_presence,
    ground_probes,
)

# The scenes that the masks are trained on would show masks that are too good.
NEW_SCENES = 100
T_ACC = 0.95
KNOWS = {
    "what": f"drawings of ten kinds of things, alone or as a pair ({', '.join(CONCEPTS)}), and no "
    "photographs",
    "nouns": list(CONCEPTS),
}


@dataclass(frozen=True)
class PresenceFigures:
    """Figures of scores: how well they separate present from absent phrases.

    scores: by their public names, fractions. bins: of the reliability plot.
    """

    scores: dict[str, float]
    bins: Reliability


def fit_scene_presence(model: GroundedLMM, folder: Path, *, count: int, seed: int = 0) -> float:
    """Fit a presence head in place, on new scenes of the training vendors that are written into
    `folder`.

    Returns:
        The threshold at which 95 % of the present phrases of the held-out scenes are called
        present.
    """
    scenes = compose_demo_scenes(folder, "train", count=count, seed=NEW_SCENES + seed).read()
    probed = ground_probes(model, probed_scenes(scenes, seed=seed))
    head, held_out = fit_presence(probed)
    model.heads.use_presence(head)
    model.heads.knows = KNOWS
    scores = head.scores(probed.evidence).numpy()
    return threshold_for(scores[held_out & (probed.kinds == PRESENT)], T_ACC)


def compare_scores(
    model: GroundedLMM, test: PanopticNarratives, folder: Path, *, count: int, seed: int = 0
) -> dict[str, PresenceFigures]:
    """Measure geometric scores, fit a presence head in place, and measure its scores; arguments are
    those of `fit_scene_presence`."""
    geometric = measure_presence(model, test, threshold=0.5, seed=seed)
    threshold = fit_scene_presence(model, folder, count=count, seed=seed)
    fitted = measure_presence(model, test, threshold=threshold, seed=seed)
    return {"geometric": geometric, "presence head": fitted}


def measure_presence(
    model: GroundedLMM, scenes: PanopticNarratives, *, threshold: float, seed: int = 0
) -> PresenceFigures:
    """Measure scores on scenes with present and absent phrases.

    Args:
        threshold: a phrase with this score or more is called present.
    """
    probed = ground_probes(model, probed_scenes(scenes, seed=seed + 1))
    return presence_figures(probed, threshold)


def presence_figures(probed: ProbedPhrases, threshold: float) -> PresenceFigures:
    """Compute the figures of grounded probes."""
    scores, kinds = probed.scores, probed.kinds
    present = kinds == PRESENT
    figures = {
        "AUROC easy": auroc(scores[present], scores[kinds == EASY]),
        "AUROC hard": auroc(scores[present], scores[kinds == HARD]),
        **presence_accuracy(scores, present, threshold=threshold),
    }
    easy = kinds != HARD
    found = presence_accuracy(scores[easy], present[easy], threshold=threshold)
    figures["N-acc easy"] = found["N-acc"]
    figures |= concept_scores(probed.ious, scores >= threshold, present)
    bins = reliability(np.clip(scores, 0, 1), probed.is_right)
    return PresenceFigures({**figures, "ECE": bins.error, "threshold": threshold}, bins)


def presence_table(rows: dict[str, PresenceFigures]) -> str:
    """Write the figures as a Markdown table, in percent; a row for each kind of score."""
    names = next(iter(rows.values())).scores
    cells = [["score", *names]]
    for name, figures in rows.items():
        cells.append([name, *(f"{100 * value:.1f}" for value in figures.scores.values())])
    return aligned_table(cells)


def write_shipped_heads(model: GroundedLMM, path: Path) -> None:
    """Write heads as they ship with flmm: a file of `save_heads` in float16, half as large."""
    state = {name: value.half() for name, value in model.heads.state_dict().items()}
    model.save_heads(path, state)
