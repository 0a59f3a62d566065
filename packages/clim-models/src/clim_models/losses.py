"""Losses on features: the contrastive loss of CLIP, distillation by cosine, and yes-or-no questions about classes.

Letters: n rows of this rank, N rows of all ranks together, R ranks, C channels, K classes.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


class _AllGatherRows(torch.autograd.Function):
    """Concatenates the rows of every rank; the backward pass sums what every rank asks of each row."""

    @staticmethod
    def forward(ctx, rows, counts, rank, group):
        ctx.counts, ctx.rank, ctx.group = counts, rank, group
        # Collectives need equal shapes, so shorter ranks are padded and the padding is cut off again.
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: rows.shape[0]] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, group=group)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx, grad):
        # Features are small (N x C), so an all_reduce is cheap, and unlike reduce_scatter every backend has it.
        grad = grad.contiguous().clone()
        dist.all_reduce(grad, group=ctx.group)
        start = sum(ctx.counts[: ctx.rank])
        return grad[start : start + ctx.counts[ctx.rank]], None, None, None


class GatherFeatures:
    """Collects the rows of all ranks with gradients, so that a loss can compare local rows with the global batch.

    Calling it with (n, ...) rows returns ``(all_rows, start)``: the (N, ...) rows in rank order and the index of
    this rank's first row in them. Ranks may hold different n, also 0. The gradient of ``all_rows`` reaches the rank
    that owns a row as the SUM over ranks, so averaging parameter gradients over ranks (what DistributedDataParallel
    and DeepSpeed do) gives the gradient of the mean over ranks of the losses. Every rank must make the same calls in
    the same order, and on every rank the rows must agree in dtype and in whether they require a gradient.

    Raises ValueError when the rank is not one of the world, or the process group is missing.
    """

    def __init__(self, world_size: int, rank: int, group: "dist.ProcessGroup | None" = None):
        if not 0 <= rank < world_size:
            raise ValueError(f"rank={rank} is not in a world of world_size={world_size}: pass 0 <= rank < world_size")
        if world_size > 1 and not (dist.is_available() and dist.is_initialized()):
            raise ValueError(
                f"world_size={world_size} needs a process group: call torch.distributed.init_process_group first"
            )
        self.world_size = world_size
        self.rank = rank
        self.group = group

    def __call__(self, rows: Tensor) -> tuple[Tensor, int]:
        if self.world_size == 1:
            return rows, 0
        counts = self.row_counts(rows)
        start = sum(counts[: self.rank])
        if sum(counts) == 0:
            return rows, 0
        return _AllGatherRows.apply(rows, counts, self.rank, self.group), start

    def row_counts(self, rows: Tensor) -> list[int]:
        """Number of rows of each rank, in rank order."""
        mine = torch.tensor([rows.shape[0]], device=rows.device, dtype=torch.int64)
        counts = [torch.empty_like(mine) for _ in range(self.world_size)]
        dist.all_gather(counts, mine, group=self.group)
        return torch.cat(counts).tolist()


def contrastive_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor | float,
    *,
    caption_ids: Tensor | None = None,
    gather: GatherFeatures | None = None,
) -> Tensor:
    """Symmetric InfoNCE: every image (or region) row must pick its text row, and every text row its image row.

    With unit rows x_i (images) and y_i (texts), s the logit scale, and N pairs in the global batch,

        loss = 1 / 2N * sum_i [ -log softmax_j(s x_i . y_j)[i] - log softmax_j(s y_i . x_j)[i] ]

    (CLIP, arXiv 2103.00020, section 2.3). Logits and softmax are computed in float32 whatever the features are, also
    under autocast.

    Args:
        image_features: (n, C) unit rows of this rank; row i belongs to text row i.
        text_features: (n, C) unit rows of this rank.
        logit_scale: scalar multiplier, already exponentiated (``model.logit_scale.exp()``).
        caption_ids: (n,) integers. Rows with equal ids say the same, so they are not negatives of each other: their
            logits are left out of both softmaxes, except each row's own pair. None: all other rows are negatives.
        gather: None for one process. With a `GatherFeatures`, the local rows are contrasted with the rows of all
            ranks; the returned value is scaled by R n / N so that the mean over ranks of the losses, and gradients
            averaged over ranks, equal those of one process that holds the whole global batch.

    Returns a float32 scalar. Raises ValueError for shapes that do not match or an empty global batch.
    """
    _check_pairs(image_features, text_features, caption_ids)
    rows = image_features.shape[0]
    all_images, all_texts, all_ids, start, world_size = image_features, text_features, caption_ids, 0, 1
    if gather is not None:
        # One collective for both kinds of rows keeps the order of backward collectives the same on every rank.
        both, start = gather(torch.stack([image_features, text_features], dim=1))  # (N, 2, C)
        all_images, all_texts = both.unbind(dim=1)
        all_ids = None if caption_ids is None else gather(caption_ids)[0]
        world_size = gather.world_size
    total = all_images.shape[0]
    if total == 0:
        raise ValueError("contrastive_loss got no rows: pass at least one pair of features")

    labels = torch.arange(start, start + rows, device=image_features.device)
    same = None
    if caption_ids is not None:
        same = caption_ids[:, None] == all_ids[None, :]  # (n, N)
        same[torch.arange(rows, device=same.device), labels] = False
    with torch.autocast(image_features.device.type, enabled=False):
        image_logits = logit_scale * (image_features.float() @ all_texts.float().T)  # (n, N)
        if gather is None:
            text_logits = image_logits.T
        else:
            text_logits = logit_scale * (text_features.float() @ all_images.float().T)
        both_ways = _summed_cross_entropy(image_logits, labels, same) + _summed_cross_entropy(text_logits, labels, same)
    return both_ways * (world_size / (2 * total))


def _summed_cross_entropy(logits: Tensor, labels: Tensor, left_out: Tensor | None) -> Tensor:
    if left_out is not None:
        logits = logits.masked_fill(left_out, float("-inf"))
    return F.cross_entropy(logits, labels, reduction="sum")


def _check_pairs(image_features: Tensor, text_features: Tensor, caption_ids: Tensor | None) -> None:
    if image_features.ndim != 2 or image_features.shape != text_features.shape:
        raise ValueError(
            f"image_features {tuple(image_features.shape)} and text_features {tuple(text_features.shape)} must both "
            "be (n, C): pass one text row per image row"
        )
    if caption_ids is not None and caption_ids.shape != image_features.shape[:1]:
        raise ValueError(
            f"caption_ids has shape {tuple(caption_ids.shape)} for {image_features.shape[0]} rows: "
            "pass one integer per row"
        )


def cosine_distillation(student: Tensor, teacher: Tensor, *, rows: Tensor | float | None = None) -> Tensor:
    """1 - mean cosine of the student's and the teacher's rows (CLIPSelf, arXiv 2310.01403, section 3.2).

    Computed in float32 whatever the features are, also under autocast.

    Args:
        student, teacher: (n, C) rows of any length; n may be 0. No gradient reaches the teacher.
        rows: what the sum of 1 - cosine is divided by; None divides by n. With R ranks that hold N rows together,
            N / R makes the mean over ranks of losses and gradients those of one process with all rows.

    Returns a float32 scalar, 0 for no rows. Raises ValueError for shapes that do not match.
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            f"student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must both be (n, C): "
            "pass one teacher row for each student row"
        )
    with torch.autocast(student.device.type, enabled=False):
        cosines = F.cosine_similarity(student.float(), teacher.detach().float(), dim=1)  # (n,)
        return (1 - cosines).sum() / (max(len(student), 1) if rows is None else rows)


def federated_class_weights(
    present: Tensor, keys: Tensor, size: int | None = None, *, repeat_present: bool = False
) -> Tensor:
    """Which classes a batch is asked about: all that are present, and others by chance until there are `size`.

    A federated sample (arXiv 2103.07461, used in RegionCLIP-style training). The answer is a weight for every class
    instead of a list, because the length of a list would have to be fetched from the device.

    Args:
        present: (K,) bool or counts, non-zero for classes that occur in the batch.
        keys: (K,) random numbers, whole or in any range; absent classes with the smallest ones are taken.
        size: classes to take; more are present: all of these and no others. None: every class.
        repeat_present: if there are fewer than `size` classes, fill up with present ones, which then count twice,
            as the implementation released with CLIPSelf does.

    Returns (K,) float32: 0 not asked, 1 asked, 2 counted twice. Raises ValueError for wrong shapes or size.
    """
    if present.ndim != 1 or keys.shape != present.shape:
        raise ValueError(
            f"present {tuple(present.shape)} and keys {tuple(keys.shape)} must both be (K,): pass one of each per class"
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
    """Binary cross-entropy of every region with every class: summed over classes, averaged over regions.

    With unit rows x_i, unit class embeddings e_k, temperature s, weights w_k and targets t_ik (1 for the label),

        loss = 1/n sum_i sum_k w_k BCE(sigmoid(s x_i . e_k), t_ik)

    Logits and loss are computed in float32 whatever the features are, also under autocast.

    Args:
        features: (n, C) unit rows; n may be 0.
        class_embeddings: (K, C) unit rows.
        labels: (n,) int64 classes of the regions.
        temperature: scalar multiplier of the cosines.
        class_weights: (K,) of `federated_class_weights`; None asks about every class once.
        rows: as in `cosine_distillation`.

    Returns a float32 scalar, 0 for no rows. Raises ValueError for shapes that do not match.
    """
    classes = class_embeddings.shape[0]
    if features.ndim != 2 or class_embeddings.ndim != 2 or features.shape[1] != class_embeddings.shape[1]:
        raise ValueError(
            f"features {tuple(features.shape)} and class_embeddings {tuple(class_embeddings.shape)} must be (n, C) "
            "and (K, C): embed the classes with the text tower of the same model"
        )
    if labels.shape != features.shape[:1]:
        raise ValueError(f"labels {tuple(labels.shape)} for {len(features)} regions: pass one class index per region")
    if class_weights is not None and class_weights.shape != (classes,):
        raise ValueError(f"class_weights {tuple(class_weights.shape)} for {classes} classes: pass one weight per class")
    with torch.autocast(features.device.type, enabled=False):
        logits = temperature * (features.float() @ class_embeddings.float().T)  # (n, K)
        targets = torch.zeros_like(logits).scatter_(1, labels[:, None], 1.0)
        loss = F.binary_cross_entropy_with_logits(logits, targets, weight=class_weights, reduction="sum")
        return loss / (max(len(features), 1) if rows is None else rows)
