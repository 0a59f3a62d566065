"""The contrastive loss of CLIP, on the features of one process or of all ranks.

Letters: n rows of this rank, N rows of all ranks together, R ranks, C channels, K classes.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from clim_models.losses.gather import GatherFeatures


def contrastive_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    *,
    caption_ids: Tensor | None = None,
    gather: GatherFeatures | None = None,
) -> Tensor:
    """Compute symmetric InfoNCE over image (or region) rows and text rows.

    Every image row must pick its text row, and every text row its image row.

    With unit rows x_i (images) and y_i (texts), s the logit scale, and N pairs in the global batch,

        loss = 1 / 2N * sum_i [ -log softmax_j(s x_i . y_j)[i] - log softmax_j(s y_i . x_j)[i] ]

    (CLIP, arXiv 2103.00020, section 2.3). Logits and softmax are in float32 for all dtypes
    of features, also under autocast.

    Args:
        image_features: (n, C) unit rows of this rank; row i belongs to text row i.
        text_features: (n, C) unit rows of this rank.
        logit_scale: scalar multiplier, already exponentiated (``model.logit_scale.exp()``).
        caption_ids: (n,) integers. Rows with equal ids have the same caption, so they are not
            negatives of each other: both softmaxes skip their logits, except each row's own pair.
            None makes all other rows negatives.
        gather: None for one process. With a `GatherFeatures`, the local rows are contrasted with
            the rows of all ranks; the returned value is scaled by R n / N so that the mean over
            ranks of the losses, and gradients averaged over ranks, equal those of one process that
            holds the whole global batch.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: shapes that do not match, or an empty global batch.
    """
    _check_pairs(image_features, text_features, caption_ids)
    everyone = _rows_of_all_ranks(image_features, text_features, caption_ids, gather)
    rows = image_features.shape[0]
    total = everyone.images.shape[0]
    if total == 0:
        raise ValueError("contrastive_loss got no rows: pass at least one pair of features")

    device = image_features.device
    labels = torch.arange(everyone.start, everyone.start + rows, device=device)
    same = _equal_captions(caption_ids, everyone.ids, labels)

    with torch.autocast(device.type, enabled=False):
        image_logits = logit_scale * (image_features.float() @ everyone.texts.float().T)  # (n, N)
        if gather is None:
            text_logits = image_logits.T
        else:
            text_logits = logit_scale * (text_features.float() @ everyone.images.float().T)
        of_images = _summed_cross_entropy(image_logits, labels, same)
        of_texts = _summed_cross_entropy(text_logits, labels, same)
    return (of_images + of_texts) * (everyone.world_size / (2 * total))


class _AllRows(NamedTuple):
    """The rows of all ranks, and the index of this rank's first row."""

    images: Tensor  # (N, C)
    texts: Tensor  # (N, C)
    ids: Tensor | None  # (N,)
    start: int
    world_size: int


def _rows_of_all_ranks(
    images: Tensor, texts: Tensor, ids: Tensor | None, gather: GatherFeatures | None
) -> _AllRows:
    if gather is None:
        return _AllRows(images, texts, ids, start=0, world_size=1)

    # One collective for both kinds of rows keeps the order of backward collectives the same on
    # every rank.
    both, start = gather(torch.stack([images, texts], dim=1))  # (N, 2, C)
    all_images, all_texts = both.unbind(dim=1)
    all_ids = None if ids is None else gather(ids)[0]
    return _AllRows(all_images, all_texts, all_ids, start, gather.world_size)


def _equal_captions(own: Tensor | None, everyone: Tensor | None, labels: Tensor) -> Tensor | None:
    """Mark captions that are no negatives, bool (n, N), but not each row's own pair."""
    if own is None or everyone is None:
        return None
    same = own[:, None] == everyone[None, :]
    same[torch.arange(len(own), device=same.device), labels] = False
    return same


def _summed_cross_entropy(logits: Tensor, labels: Tensor, excluded: Tensor | None) -> Tensor:
    if excluded is not None:
        logits = logits.masked_fill(excluded, float("-inf"))
    return F.cross_entropy(logits, labels, reduction="sum")


def _check_pairs(image_features: Tensor, text_features: Tensor, caption_ids: Tensor | None) -> None:
    if image_features.ndim != 2 or image_features.shape != text_features.shape:
        raise ValueError(
            f"image_features {tuple(image_features.shape)} and text_features "
            f"{tuple(text_features.shape)} must both be (n, C): pass one text row per image row"
        )
    if caption_ids is not None and caption_ids.shape != image_features.shape[:1]:
        raise ValueError(
            f"caption_ids has shape {tuple(caption_ids.shape)} for {image_features.shape[0]} rows: "
            "pass one integer per row"
        )
