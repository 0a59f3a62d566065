"""Generalized referring expression segmentation (GRES, gRefCOCO): expressions for one thing, for
several, or for none. The rules are those of the authors' evaluation (arXiv 2306.00968)."""

import numpy as np
from numpy.typing import ArrayLike

PRECISIONS = (0.7, 0.8, 0.9)


def generalized_metrics(
    intersections: ArrayLike, unions: ArrayLike, is_found: ArrayLike, is_present: ArrayLike
) -> dict[str, float]:
    """Compute the metrics of N expressions, as fractions.

    Args:
        intersections, unions: (N,) pixels of the mask found with the true one, which is empty for
            an expression without a target.
        is_found: bool (N,), whether the model gave a mask. is_present: bool (N,), whether there is
            a target.

    Returns:
        "gIoU": mean IoU; without a target 1 if no mask was given, else 0. "cIoU": sum of
        intersections / sum of unions; a mask without a target adds its pixels to the unions.
        "N-acc", "T-acc": shares of expressions without and with a target that were called so.
        "Pr@0.7", "@0.8", "@0.9": shares of the expressions with a target whose IoU is above.
        nan of none.

    Raises:
        ValueError: lengths that differ.
    """
    intersections, unions = (
        np.asarray(intersections, np.int64),
        np.asarray(unions, np.int64),
    )
    is_found, is_present = np.asarray(is_found, bool), np.asarray(is_present, bool)
    if len({len(intersections), len(unions), len(is_found), len(is_present)}) != 1:
        raise ValueError("pass one value of each kind for every expression")

    # A target that got no mask: its own pixels are the union.
    ious = intersections / np.maximum(unions, 1)
    values = np.where(is_present, ious, ~is_found)
    precise = {f"Pr@{least}": _mean(ious[is_present] > least) for least in PRECISIONS}
    return {
        "gIoU": _mean(values),
        "cIoU": float(intersections.sum() / unions.sum()) if unions.sum() else float("nan"),
        "N-acc": _mean(~is_found[~is_present]),
        "T-acc": _mean(is_found[is_present]),
        **precise,
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
