"""Scores of phrases: how well they separate present things from absent ones.

Letters: N phrases, K bins.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

F1_IOUS = tuple(0.5 + 0.05 * step for step in range(10))
"""IoUs at which SA-Co counts a mask as right, before the mean over them."""


def auroc(present: ArrayLike, absent: ArrayLike) -> float:
    """Compute the chance that a present phrase has a higher score than an absent one; equal scores
    count half (the area under the ROC curve, by ranks).

    Args:
        present, absent: scores of phrases of either kind, any numbers of them.

    Returns:
        The area in [0, 1]; nan where one kind has no phrase. `auroc([0.9, 0.4], [0.4])` is 0.75.
    """
    present, absent = np.asarray(present, np.float64), np.asarray(absent, np.float64)
    if not len(present) or not len(absent):
        return float("nan")
    ordered = np.sort(absent)
    below = np.searchsorted(ordered, present, side="left")
    up_to = np.searchsorted(ordered, present, side="right")
    return float((below + up_to).mean() / (2 * len(absent)))


def presence_accuracy(
    scores: ArrayLike, is_present: ArrayLike, *, threshold: float
) -> dict[str, float]:
    """Compute "N-acc" and "T-acc" of gRefCOCO (arXiv 2306.00968) at a threshold of the score.

    Args:
        scores: (N,), a phrase is called present from `threshold` on. is_present: bool (N,).

    Returns:
        {"N-acc": share of absent phrases called absent, "T-acc": share of present phrases called
        present}, nan of none.
    """
    scores, is_present = _checked(scores, is_present)
    called = scores >= threshold
    return {"N-acc": _share(~called[~is_present]), "T-acc": _share(called[is_present])}


def threshold_for(present: ArrayLike, t_acc: float = 0.95) -> float:
    """Return the highest threshold at which at least the share `t_acc` of present phrases is called
    present; nan of none.

    Choose it on one set of phrases, and measure on another.
    """
    ordered = np.sort(np.asarray(present, np.float64))[::-1]
    if not len(ordered):
        return float("nan")
    needed = int(np.ceil(t_acc * len(ordered) - 1e-9))
    return float(ordered[max(needed, 1) - 1])


def matthews(called: ArrayLike, is_present: ArrayLike) -> float:
    """Compute Matthews' correlation of two bool (N,) in [-1, 1]; 0 where either is constant.

    SA-Co calls it IL_MCC: each pair of an image and a phrase is one of the N.
    """
    called, is_present = np.asarray(called, bool), np.asarray(is_present, bool)
    right, missed = int((called & is_present).sum()), int((~called & is_present).sum())
    wrong, refused = int((called & ~is_present).sum()), int((~called & ~is_present).sum())
    below = (right + wrong) * (right + missed) * (refused + wrong) * (refused + missed)
    return (right * refused - wrong * missed) / float(below) ** 0.5 if below else 0.0


def concept_scores(ious: ArrayLike, called: ArrayLike, is_present: ArrayLike) -> dict[str, float]:
    """Compute "IL_MCC", "pmF1" and "cgF1" of SA-Co (arXiv 2511.16719), for one mask a phrase.

    Args:
        ious: (N,) of the mask of each phrase with the true one; those of absent phrases do not
            count. called: bool (N,), the phrases that get a mask. is_present: bool (N,).

    Returns:
        "IL_MCC": see `matthews`. "pmF1": F1 over the present phrases, a mask being right from an
        IoU on, as the mean over `F1_IOUS`; nan of none. "cgF1": the product of both, which the
        paper multiplies by 100.
    """
    called, is_present = np.asarray(called, bool), np.asarray(is_present, bool)
    masked = called[is_present]
    reached = np.asarray(ious, np.float64)[is_present]
    scores = []
    for least in F1_IOUS:
        right = int((masked & (reached >= least - 1e-9)).sum())
        # A mask that is not right is a false one, and its thing is missed as well.
        scores.append(2 * right / (int(masked.sum()) + len(masked)) if len(masked) else np.nan)
    f1, correlation = float(np.mean(scores)), matthews(called, is_present)
    return {"IL_MCC": correlation, "pmF1": f1, "cgF1": f1 * correlation}


@dataclass(frozen=True)
class Reliability:
    """K bins of equal numbers of phrases, by rising score.

    counts: (K,) phrases. confidence: (K,) mean score. accuracy: (K,) share of right phrases.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of score and accuracy; nan of none."""
        if not self.counts.sum():
            return float("nan")
        distance = np.abs(self.confidence - self.accuracy)
        return float((self.counts * distance).sum() / self.counts.sum())


def reliability(scores: ArrayLike, is_right: ArrayLike, *, bins: int = 10) -> Reliability:
    """Compare scores in [0, 1] with how often they are right, in bins of equal numbers of phrases.

    Args:
        scores: (N,). is_right: bool (N,).
        bins: fewer where there are fewer phrases.

    Raises:
        ValueError: scores outside [0, 1], or another number of them than of `is_right`.
    """
    scores, is_right = _checked(scores, is_right)
    if ((scores < 0) | (scores > 1)).any():
        raise ValueError("scores must be between 0 and 1: pass probabilities, not logits")
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, max(bins, 1)) if len(part)]
    return Reliability(
        np.array([len(part) for part in parts], dtype=np.int64),
        np.array([scores[part].mean() for part in parts]),
        np.array([is_right[part].mean() for part in parts]),
    )


def _checked(scores: ArrayLike, flags: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    scores, flags = np.asarray(scores, np.float64), np.asarray(flags, bool)
    if scores.shape != flags.shape or scores.ndim != 1:
        raise ValueError(
            f"scores {scores.shape} and flags {flags.shape}: pass one of each for every phrase"
        )
    return scores, flags


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else float("nan")
