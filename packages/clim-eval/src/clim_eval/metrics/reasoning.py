"""ReasonSeg's figures from counts of pixels (LISA, arXiv 2308.00692)."""

import numpy as np
from numpy.typing import ArrayLike


def reasoning_metrics(
    intersections: ArrayLike, unions: ArrayLike, is_sentence: ArrayLike
) -> dict[str, float]:
    """Compute gIoU and cIoU of N questions, as fractions.

    Args:
        intersections, unions: (N,) pixels, without those that are excluded from scores.
        is_sentence: bool (N,), whether a question is a long one, and not a short phrase.

    Returns:
        "gIoU", the mean of I / (U + 1e-5), where an empty union counts 1, and "cIoU", sum of I /
        (sum of U + 1e-10); the same with "short." and "long." before them. nan of none.

    Raises:
        ValueError: the lengths differ.
    """
    inter = np.asarray(intersections, dtype=np.float64)
    union = np.asarray(unions, dtype=np.float64)
    long = np.asarray(is_sentence, dtype=bool)
    if not inter.shape == union.shape == long.shape:
        raise ValueError("intersections, unions and is_sentence differ in length: pass one of each")
    metrics = {}
    for name, rows in (("", np.ones_like(long)), ("short.", ~long), ("long.", long)):
        i, u = inter[rows], union[rows]
        each = np.where(u == 0, 1.0, i / (u + 1e-5))
        metrics[f"{name}gIoU"] = float(each.mean()) if len(each) else float("nan")
        metrics[f"{name}cIoU"] = float(i.sum() / (u.sum() + 1e-10)) if len(i) else float("nan")
    return metrics
