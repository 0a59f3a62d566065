"""The loss of RegionCLIP-style training: yes-or-no questions about a sample of classes."""

import torch
import torch.nn.functional as F
from torch import Tensor


def federated_class_weights(
    present: Tensor, keys: Tensor, size: int | None = None, *, repeat_present: bool = False
) -> Tensor:
    """Draw the classes in the questions about a batch.

    These are all classes that are present, and random others until there are `size`: a federated
    sample (arXiv 2103.07461, used in RegionCLIP-style training). The result is a weight for every
    class instead of a list, because the length of a list would have to be fetched from the device.

    Args:
        present: (K,) bool or counts, non-zero for classes that occur in the batch.
        keys: (K,) random numbers in any range; absent classes with the smallest ones are taken.
        size: number of classes. If more are present, exactly these are taken. None takes all.
        repeat_present: if K is smaller than `size`, count present classes twice until there are
            `size`, as the implementation released with CLIPSelf does.

    Returns:
        (K,) float32: 0 not asked, 1 asked, 2 counted twice.

    Raises:
        ValueError: wrong shapes or size.
    """
    if present.ndim != 1 or keys.shape != present.shape:
        raise ValueError(
            f"present {tuple(present.shape)} and keys {tuple(keys.shape)} must both be (K,): pass "
            "one of each per class"
        )
    if size is not None and size < 1:
        raise ValueError(f"size={size!r} is not possible: use a number of classes, or None for all")

    present = present.bool()
    classes = len(present)
    if size is None:
        return torch.ones(classes, device=present.device)

    # Two stable sorts: by key, then present classes before the others.
    order = keys.argsort(stable=True)
    order = order[(~present[order]).to(torch.uint8).argsort(stable=True)]
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(classes, device=order.device))
    weights = (present | (rank < size)).float()
    if repeat_present and size > classes:
        weights += present & (rank < size - classes)
    return weights


def federated_region_loss(
    features: Tensor,
    class_embeddings: Tensor,
    labels: Tensor,
    temperature: Tensor | float,
    *,
    class_weights: Tensor | None = None,
    rows: Tensor | float | None = None,
) -> Tensor:
    """Compute the binary cross-entropy of every region with every class.

    It is summed over classes and averaged over regions.

    With unit rows x_i, unit class embeddings e_k, temperature s, weights w_k and targets t_ik (1
    for the label),

        loss = 1/n sum_i sum_k w_k BCE(sigmoid(s x_i . e_k), t_ik)

    Logits and loss are in float32 for all dtypes of features, also under autocast.

    Args:
        features: (n, C) unit rows; n may be 0.
        class_embeddings: (K, C) unit rows.
        labels: (n,) int64 classes of the regions.
        temperature: scalar multiplier of the cosines.
        class_weights: (K,) of `federated_class_weights`; None asks about every class once.
        rows: as in `cosine_distillation`.

    Returns:
        A float32 scalar, 0 for no rows.

    Raises:
        ValueError: shapes that do not match.
    """
    _check_regions(features, class_embeddings, labels, class_weights)
    with torch.autocast(features.device.type, enabled=False):
        logits = temperature * (features.float() @ class_embeddings.float().T)  # (n, K)
        targets = torch.zeros_like(logits).scatter_(1, labels[:, None], 1.0)
        loss = F.binary_cross_entropy_with_logits(
            logits, targets, weight=class_weights, reduction="sum"
        )
        return loss / (max(len(features), 1) if rows is None else rows)


def _check_regions(
    features: Tensor, class_embeddings: Tensor, labels: Tensor, class_weights: Tensor | None
) -> None:
    """Reject shapes that do not match."""
    classes = class_embeddings.shape[0]
    if (
        features.ndim != 2
        or class_embeddings.ndim != 2
        or features.shape[1] != class_embeddings.shape[1]
    ):
        raise ValueError(
            f"features {tuple(features.shape)} and class_embeddings "
            f"{tuple(class_embeddings.shape)} must be (n, C) and (K, C): "
            "embed the classes with the text tower of the same model"
        )
    if labels.shape != features.shape[:1]:
        raise ValueError(
            f"labels {tuple(labels.shape)} for {len(features)} regions: pass one class index per "
            "region"
        )
    if class_weights is not None and class_weights.shape != (classes,):
        raise ValueError(
            f"class_weights {tuple(class_weights.shape)} for {classes} classes: pass one weight "
            "per class"
        )
