"""Scores of predicted masks of phrases, for narratives and for referring expressions."""

import numpy as np

from clim_eval.evaluators.mask_scores import MaskScores
from clim_eval.metrics.masks import ious, with_prefix
from clim_eval.metrics.narratives import narrative_metrics
from clim_eval.metrics.referring import referring_metrics


def narrative_scores(scores: MaskScores, *, protocol: str = "exact") -> dict[str, float]:
    """Compute `narrative_metrics` of samples added with is_plural and is_thing, and
    "pixel_accuracy", the mean over phrases."""
    intersections, unions = scores.column("intersections"), scores.column("unions")
    values = ious(intersections, unions, empty=0.0)
    if protocol == "original":
        values = values.astype(np.float32)
    metrics = narrative_metrics(
        values, scores.column("is_plural"), scores.column("is_thing"), protocol=protocol
    )
    agreeing = 1 - (unions - intersections) / scores.pixels()
    accuracy = {"pixel_accuracy": float(agreeing.mean()) if len(agreeing) else float("nan")}
    return {
        **metrics,
        **(with_prefix("original", accuracy) if protocol == "original" else accuracy),
    }


def referring_scores(
    scores: MaskScores, *, protocol: str = "standard", empty: str | None = None
) -> dict[str, float]:
    """Compute `referring_metrics` of the samples in `scores`."""
    return referring_metrics(
        scores.column("intersections"), scores.column("unions"), protocol=protocol, empty=empty
    )
