"""Accuracy as pure functions of arrays: ranks of the right answer, means over classes, recall.

Letters: N rows (regions, images, captions), K candidates (classes, texts, images).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

ROUNDINGS = ("exact", "fp16")


def label_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """Count the wrong candidates that score at least as high as the right one: 0 means top-1, below
    5 means top-5.

    A wrong candidate with exactly the same score counts as ranked before, so the result does not
    depend on the order of the candidates and a constant score is never right.

    Args:
        scores: (N, K) similarities, higher is better.
        labels: (N,) int64, the right candidate of each row.

    Returns (N,) int64. Raises ValueError for labels outside [0, K) and for scores that are not
    finite.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(
            f"scores {tuple(scores.shape)} and labels {tuple(labels.shape)} must be (N, K) and "
            "(N,): "
            "pass one label per row"
        )
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < scores.shape[1]):
        raise ValueError(
            f"labels reach from {int(labels.min())} to {int(labels.max())}, but there are "
            f"{scores.shape[1]} "
            "candidates: embed every class of the data set, in its order"
        )
    # Every comparison with NaN is false, which would make a broken model look perfect.
    if not bool(torch.isfinite(scores).all()):
        raise ValueError(
            "scores contain NaN or infinity: check the model's weights and precision (try fp32 or "
            "bf16)"
        )
    own = scores.gather(1, labels[:, None])  # (N, 1)
    return (scores >= own).sum(dim=1) - 1


def mean_class_accuracy(correct: ArrayLike, labels: ArrayLike, *, rounding: str = "exact") -> float:
    """Average the fraction of right rows over the classes that occur: every class weighs the same.

    Args:
        correct: (N,) booleans or 0/1, array or tensor.
        labels: (N,) integers, class of each row.
        rounding: "exact", or "fp16" to round each class's fraction to half precision before
            averaging, as the original CLIPSelf and CLIM evaluators (arXiv 2310.01403, 2312.11376)
            did for their published figures.

    Returns a fraction in [0, 1], or nan when there is no row. Raises ValueError for another
    rounding or shape.
    """
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding={rounding!r} is unknown: use one of {ROUNDINGS}")
    correct, labels = np.asarray(correct, dtype=np.float64), np.asarray(labels)
    if correct.ndim != 1 or correct.shape != labels.shape:
        raise ValueError(
            f"correct {correct.shape} and labels {labels.shape} must both be (N,): pass one flag "
            "per label"
        )
    if len(labels) == 0:
        return float("nan")
    _, owner, counts = np.unique(labels, return_inverse=True, return_counts=True)
    fractions = np.bincount(owner, weights=correct) / counts  # (classes that occur,)
    if rounding == "fp16":
        fractions = fractions.astype(np.float32).astype(np.float16)
    return float(fractions.astype(np.float64).mean())


def class_accuracy_table(
    ranks: ArrayLike, labels: ArrayLike, is_thing: ArrayLike, *, rounding: str = "exact"
) -> dict[str, float]:
    """Return ``{"thing.mAcc1", "thing.mAcc5", "stuff...", "all..."}`` from the rank of the right
    class of each region.

    ``ranks`` is (N,) as `label_ranks` gives it, ``labels`` (N,), ``is_thing`` (N,) booleans. A
    group without regions is not in the result. Fractions in [0, 1].
    """
    ranks, labels, is_thing = (
        np.asarray(ranks),
        np.asarray(labels),
        np.asarray(is_thing).astype(bool),
    )
    table = {}
    for group, rows in (("thing", is_thing), ("stuff", ~is_thing), ("all", np.ones_like(is_thing))):
        if rows.any():
            for k in (1, 5):
                table[f"{group}.mAcc{k}"] = mean_class_accuracy(
                    ranks[rows] < k, labels[rows], rounding=rounding
                )
    return table


def top_k_accuracy(ranks: ArrayLike, ks: Sequence[int] = (1, 5)) -> dict[str, float]:
    """Return ``{"top1": ..., "top5": ...}``: fraction of rows whose right answer is among the best
    k; nan without rows."""
    ranks = np.asarray(ranks)
    return {f"top{k}": float((ranks < k).mean()) if len(ranks) else float("nan") for k in ks}


def best_ranks(
    queries: Tensor, candidates: Tensor, relevant: Sequence[Sequence[int]], *, chunk: int = 1024
) -> Tensor:
    """Rank the best relevant candidate of each query: how many irrelevant ones score at least as
    high.

    Args:
        queries: (N, C) unit rows.
        candidates: (K, C) unit rows.
        relevant: for each query the indices of its right candidates, at least one.
        chunk: queries compared at once; memory is chunk x K.

    Returns (N,) int64 on the CPU. Raises ValueError when a query has no relevant candidate or a
    score is not finite.
    """
    ranks = []
    for start in range(0, len(queries), chunk):
        scores = queries[start : start + chunk].float() @ candidates.float().T  # (n, K)
        if not bool(torch.isfinite(scores).all()):
            raise ValueError(
                "similarities contain NaN or infinity: check the model's weights and precision"
            )
        right = torch.zeros_like(scores, dtype=torch.bool)
        for row, indices in enumerate(relevant[start : start + chunk]):
            if len(indices) == 0:
                raise ValueError(f"query {start + row} has no right answer: drop it or give it one")
            right[row, list(indices)] = True
        best = scores.masked_fill(~right, float("-inf")).amax(dim=1, keepdim=True)
        ranks.append(((scores >= best) & ~right).sum(dim=1).cpu())
    return torch.cat(ranks) if ranks else torch.empty(0, dtype=torch.int64)
