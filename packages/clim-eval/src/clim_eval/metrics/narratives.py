"""Panoptic Narrative Grounding (arXiv 2109.04988): average recall of the phrases' masks.

Recall at a threshold t is the share of phrases whose IoU is at least t; the average recall is the
area under it for t from 0 to 1. Every phrase adds a step that ends at its IoU, so the area is the
mean IoU, exactly. The original evaluation of F-LMM sums over 99,999 thresholds instead; `step`
gives that sum, in closed form too.
"""

import numpy as np
from numpy.typing import ArrayLike

from clim_eval.metrics.masks import with_prefix

ORIGINAL_STEP = 1e-5
PROTOCOLS = ("exact", "original")


def average_recall(values: ArrayLike, *, step: float | None = None) -> float:
    """Area under the recall curve of some IoUs in [0, 1]; nan of none.

    Args:
        values: (N,) IoUs.
        step: None for the exact area, the mean IoU; else the left Riemann sum over the thresholds
            0, step, 2 step, ... below 1. Its intervals add up to the first threshold above the IoU,
            so no threshold is tried.

    Raises:
        ValueError: a value outside of [0, 1], or a step outside of (0, 0.5].
    """
    values = np.asarray(values)
    if values.size == 0:
        return float("nan")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(
            "an IoU is outside of [0, 1] or nan: pass intersection / union, 0 for an empty union"
        )
    if step is None:
        return float(values.mean(dtype=np.float64))
    if not 0 < step <= 0.5:
        raise ValueError(f"step={step} must be above 0 and at most 0.5")
    thresholds = np.arange(0, 1, step)
    # float32 IoUs are compared with float32 thresholds, as an array library compares an array with
    # a number.
    above = np.searchsorted(thresholds.astype(values.dtype), values, side="right")
    return float(thresholds[np.minimum(above, len(thresholds) - 1)].mean())


def narrative_metrics(
    values: ArrayLike, is_plural: ArrayLike, is_thing: ArrayLike, *, protocol: str = "exact"
) -> dict[str, float]:
    """All averages of one evaluation, as fractions.

    Args:
        values: (N,) IoU of every phrase.
        is_plural, is_thing: bool (N,), as the reader gives them (plural phrases are things).
        protocol: "exact", or "original" for the Riemann sums of F-LMM, at most 1e-5 apart.

    Returns:
        "AR", "AR_things", "AR_stuff", "AR_singulars", "AR_plurals" and "acc@0.5" (IoU above 0.5);
        under the original protocol each with "original." before it.

    Raises:
        ValueError: the protocol is unknown.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r} is not known: choose from {', '.join(PROTOCOLS)}")
    values, plural, thing = (
        np.asarray(values),
        np.asarray(is_plural, dtype=bool),
        np.asarray(is_thing, dtype=bool),
    )
    step = ORIGINAL_STEP if protocol == "original" else None
    groups = {
        "AR": np.ones_like(plural),
        "AR_things": thing,
        "AR_stuff": ~thing,
        "AR_singulars": ~plural,
        "AR_plurals": plural,
    }
    metrics = {name: average_recall(values[group], step=step) for name, group in groups.items()}
    metrics["acc@0.5"] = float((values > 0.5).mean()) if len(values) else float("nan")
    return metrics if protocol == "exact" else with_prefix("original", metrics)
