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
FIT_SCENES = 400
# The scenes that masks are measured on, and more of the same kind.
TEST_SCENES = 300
# Geometric scores have no threshold of their own.
HALF = 0.5
RESAMPLES = 1000
KNOWS = {
    "what": f"drawings of ten kinds of things, alone or as a pair ({', '.join(CONCEPTS)}), and no "
    "photographs",
    "nouns": list(CONCEPTS),
}


@dataclass(frozen=True)
class PresenceFigures:
    """How well scores tell present from absent phrases of some images.

    scores: by their public names, fractions. bins: of the reliability plot. intervals: (low, high)
    of N-acc and T-acc, which hold 95 % of what other scenes of the kind would give.
    """

    scores: dict[str, float]
    bins: Reliability
    intervals: dict[str, tuple[float, float]]
    images: int


def fit_scene_presence(model: GroundedLMM, folder: Path, *, seed: int = 0) -> None:
    """Fit a presence head in place, on new scenes of the training vendors that are written into
    `folder`."""
    scenes = compose_demo_scenes(folder, "train", count=FIT_SCENES, seed=NEW_SCENES + seed).read()
    head, _ = fit_presence(ground_probes(model, probed_scenes(scenes, seed=seed)))
    model.heads.use_presence(head)
    model.heads.knows = KNOWS


def compare_scores(
    model: GroundedLMM, folder: Path, *, split: str = "test", seed: int = 0
) -> dict[str, PresenceFigures]:
    """Measure geometric scores, fit a presence head in place, and measure its scores.

    Args:
        folder: gets the scenes to fit on and those of the split to measure on.
    """
    model.heads.use_presence(None)
    of_split = compose_demo_scenes(
        folder / f"presence-{split}", split, count=TEST_SCENES, seed=seed
    ).read()
    probed = ground_probes(model, probed_scenes(of_split, seed=seed + 1))
    fit_scene_presence(model, folder / "presence", seed=seed)
    head = model.heads.presence
    assert head is not None  # it was fitted in the line above
    fitted = presence_figures(probed.scored_by(head), head.threshold)
    return {"geometric": presence_figures(probed, HALF), "presence head": fitted}


def measure_presence(
    model: GroundedLMM, scenes: PanopticNarratives, *, seed: int = 0
) -> PresenceFigures:
    """Measure the scores of a model with a presence head on scenes with present and absent phrases,
    at its own threshold."""
    probed = ground_probes(model, probed_scenes(scenes, seed=seed + 1))
    return presence_figures(probed, model.heads.absent_below)


def presence_figures(probed: ProbedPhrases, threshold: float) -> PresenceFigures:
    """Compute the figures of grounded probes.

    Args:
        threshold: a phrase with this score or more is called present.
    """
    scores, kinds = probed.scores, probed.kinds
    present = kinds == PRESENT
    figures = {
        "AUROC easy": auroc(scores[present], scores[kinds == EASY]),
        "AUROC hard": auroc(scores[present], scores[kinds == HARD]),
    }
    changes = sorted({*probed.changes.tolist()} - {""})
    for change in changes:
        figures[f"AUROC {change}"] = auroc(scores[present], scores[probed.changes == change])

    figures |= presence_accuracy(scores, present, threshold=threshold)
    easy = kinds != HARD
    found = presence_accuracy(scores[easy], present[easy], threshold=threshold)
    figures["N-acc easy"] = found["N-acc"]
    for change in changes:
        figures[f"N-acc {change}"] = float((scores[probed.changes == change] < threshold).mean())
    figures |= concept_scores(probed.ious, scores >= threshold, present)
    bins = reliability(np.clip(scores, 0, 1), probed.is_right)
    figures |= {"ECE": bins.error, "threshold": threshold}
    images = len(np.unique(probed.images))
    return PresenceFigures(figures, bins, _intervals(probed, threshold), images)


def _intervals(probed: ProbedPhrases, threshold: float) -> dict[str, tuple[float, float]]:
    """Draw as many images as there are, with repeats, again and again (the bootstrap): the phrases
    of an image depend on each other."""
    present = probed.kinds == PRESENT
    called = probed.scores >= threshold
    _, owners = np.unique(probed.images, return_inverse=True)
    images = int(owners.max()) + 1
    draws = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), RESAMPLES)
    intervals = {}
    for name, part, is_right in (("N-acc", ~present, ~called), ("T-acc", present, called)):
        of_images = np.bincount(owners, part, images)
        right = np.bincount(owners, part & is_right, images)
        total = draws @ of_images
        shares = (draws @ right)[total > 0] / total[total > 0]
        low, high = np.quantile(shares, (0.025, 0.975)) if len(shares) else (np.nan, np.nan)
        intervals[name] = (float(low), float(high))
    return intervals


def presence_note(rows: dict[str, PresenceFigures]) -> str:
    """Say how far N-acc and T-acc of the presence head can be trusted; rows of `compare_scores`."""
    figures = rows["presence head"]
    told = []
    for name, (low, high) in figures.intervals.items():
        share = 100 * figures.scores[name]
        told.append(f"{name} {share:.1f} % ({100 * low:.1f} to {100 * high:.1f})")
    shares = ", ".join(told)
    return f"Presence head on {figures.images} scenes, with 95 % intervals over scenes: {shares}."


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
