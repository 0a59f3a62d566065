"""Referring expression segmentation: cIoU, mIoU and precision from counts of pixels.

Two protocols are in use, and their numbers cannot be compared; so the protocol is part of every
metric's name. "standard": every sentence by itself. "original" (F-LMM): the first sentence of each
object only, all of an image in one text.
`clim_data.readers.expressions.PROTOCOLS` reads the data for either.
"""

import numpy as np
from numpy.typing import ArrayLike

from clim_eval.metrics.masks import ious, with_prefix

PROTOCOLS = ("standard", "original")
PRECISIONS = (0.5, 0.7, 0.9)
EMPTY = {"skip": float("nan"), "zero": 0.0, "one": 1.0}


def referring_metrics(
    intersections: ArrayLike,
    unions: ArrayLike,
    *,
    protocol: str = "standard",
    empty: str | None = None,
) -> dict[str, float]:
    """Metrics of N expressions, as fractions.

    Args:
        intersections, unions: (N,) pixels.
        protocol: "standard" or "original"; it labels the names and chooses `empty`.
        empty: how an expression whose true and predicted masks are both empty counts in mIoU and
            Pr: "skip" (not at all; the default of "standard"), "zero" (the default of "original")
                or "one".

    Returns:
        "PROTOCOL.cIoU" sum of intersections / sum of unions, "PROTOCOL.oIoU" the same under its
        other name (overall IoU), "PROTOCOL.mIoU" the mean IoU, "PROTOCOL.Pr@0.5", "@0.7", "@0.9"
        the shares of IoUs above; nan of none.

    Raises:
        ValueError: an unknown protocol or rule, or counts that cannot be.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r} is not known: choose from {', '.join(PROTOCOLS)}")
    empty = empty or ("zero" if protocol == "original" else "skip")
    if empty not in EMPTY:
        raise ValueError(f"empty={empty!r} is not known: choose from {', '.join(EMPTY)}")
    intersections, unions = (
        np.asarray(intersections, dtype=np.int64),
        np.asarray(unions, dtype=np.int64),
    )
    if (
        intersections.shape != unions.shape
        or (intersections > unions).any()
        or (intersections < 0).any()
    ):
        raise ValueError(
            "intersections must be between 0 and unions, one for each expression: pass counts of "
            "pixels"
        )
    values = ious(intersections, unions, empty=EMPTY[empty])
    values = values[~np.isnan(values)]
    overall = float(intersections.sum() / unions.sum()) if unions.sum() else float("nan")
    metrics = {"cIoU": overall, "oIoU": overall, "mIoU": _mean(values)}
    metrics |= {f"Pr@{threshold}": _mean(values > threshold) for threshold in PRECISIONS}
    return with_prefix(protocol, metrics)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
