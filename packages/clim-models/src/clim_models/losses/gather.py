"""Features of all ranks, with gradients."""

import torch
import torch.distributed as dist
from torch import Tensor


class _AllGatherRows(torch.autograd.Function):
    """Concatenates the rows of every rank; the backward pass sums what every rank asks of each
    row."""

    @staticmethod
    def forward(ctx, rows, counts, rank, group):
        ctx.counts, ctx.rank, ctx.group = counts, rank, group
        # Collectives need equal shapes, so shorter ranks are padded and the padding is cut off
        # again.
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: rows.shape[0]] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, group=group)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx, grad):
        # Features are small (N x C), so an all_reduce is cheap, and unlike reduce_scatter every
        # backend has it.
        grad = grad.contiguous().clone()
        dist.all_reduce(grad, group=ctx.group)
        start = sum(ctx.counts[: ctx.rank])
        return grad[start : start + ctx.counts[ctx.rank]], None, None, None


class GatherFeatures:
    """Collects the rows of all ranks with gradients, so that a loss can compare local rows with the
    global batch.

    Calling it with (n, ...) rows returns ``(all_rows, start)``: the (N, ...) rows in rank order and
    the index of this rank's first row in them. Ranks may hold different n, also 0. The gradient of
    ``all_rows`` reaches the rank that owns a row as the SUM over ranks, so averaging parameter
    gradients over ranks (what DistributedDataParallel and DeepSpeed do) gives the gradient of the
    mean over ranks of the losses. Every rank must make the same calls in the same order, and on
    every rank the rows must agree in dtype and in whether they require a gradient.

    Raises ValueError when the rank is not one of the world, or the process group is missing.
    """

    def __init__(self, world_size: int, rank: int, group: "dist.ProcessGroup | None" = None):
        if not 0 <= rank < world_size:
            raise ValueError(
                f"rank={rank} is not in a world of world_size={world_size}: pass 0 <= rank < "
                "world_size"
            )
        if world_size > 1 and not (dist.is_available() and dist.is_initialized()):
            raise ValueError(
                f"world_size={world_size} needs a process group: call "
                "torch.distributed.init_process_group first"
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
