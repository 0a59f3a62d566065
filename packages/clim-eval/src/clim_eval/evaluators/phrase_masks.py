"""Scores of predicted masks of phrases, for narratives and for referring expressions."""

from collections.abc import Mapping

import numpy as np

from clim_eval.evaluators.mask_scores import MaskScores
from clim_eval.metrics.generalized import generalized_metrics
from clim_eval.metrics.masks import ious, with_prefix
from clim_eval.metrics.narratives import narrative_metrics
from clim_eval.metrics.presence import auroc, concept_scores, reliability
from clim_eval.metrics.reasoning import reasoning_metrics
from clim_eval.metrics.referring import referring_metrics

RIGHT_IOU = 0.5
"""A mask with at least this IoU counts as right in the calibration of scores."""


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


def reasoning_scores(scores: MaskScores, is_sentence: Mapping[str, bool]) -> dict[str, float]:
    """Compute `reasoning_metrics` of the samples in `scores`, whose keys say in `is_sentence`
    whether a question is a long one."""
    long = [is_sentence[key] for key in sorted(scores.rows)]
    return reasoning_metrics(scores.column("intersections"), scores.column("unions"), long)


def entity_scores(scores: MaskScores) -> dict[str, float]:
    """Compute figures of samples that were added with the result of `phrase_boxes`.

    Returns:
        "merged.R@1" and "any.R@1", the shares of phrases whose box reaches an IoU of 0.5 with the
        box around all true boxes, or with one of them; "merged.IoU" and "any.IoU", the means;
        "pointing", the share of phrases whose highest logit lies in a true box.
    """
    found = {"pointing": float(scores.column("pointed").mean())}
    for protocol in ("merged", "any"):
        values = scores.column(protocol)
        found[f"{protocol}.R@1"] = float((values >= RIGHT_IOU).mean())
        found[f"{protocol}.IoU"] = float(values.mean())
    return found


def referring_scores(
    scores: MaskScores, *, protocol: str = "standard", empty: str | None = None
) -> dict[str, float]:
    """Compute `referring_metrics` of the samples in `scores`."""
    return referring_metrics(
        scores.column("intersections"), scores.column("unions"), protocol=protocol, empty=empty
    )


def generalized_scores(scores: MaskScores) -> dict[str, float]:
    """Compute `generalized_metrics` and `presence_scores` of samples added with "is_present",
    "is_found" and "scores"."""
    present, found = scores.column("is_present"), scores.column("is_found")
    pixels = scores.column("intersections"), scores.column("unions")
    return generalized_metrics(*pixels, found, present) | presence_scores(scores)


def presence_scores(scores: MaskScores) -> dict[str, float]:
    """Compute figures of the scores of samples that were added with "is_present", "is_found" and
    "scores".

    Returns:
        "AUROC" of present against absent phrases, "IL_MCC", "pmF1" and "cgF1" (see
        `concept_scores`), and "ECE", the expected calibration error: a score promises a present
        phrase with an IoU of `RIGHT_IOU` or more.
    """
    present, values = scores.column("is_present"), scores.column("scores").astype(np.float64)
    reached = ious(scores.column("intersections"), scores.column("unions"), empty=0.0)
    concepts = concept_scores(reached, scores.column("is_found"), present)
    right = present & (reached >= RIGHT_IOU)
    error = reliability(values, right).error
    return {"AUROC": auroc(values[present], values[~present]), **concepts, "ECE": error}
