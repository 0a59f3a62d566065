"""Features of all ranks, with gradients."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _AllGatherRows(torch.autograd.Function):
    """Concatenation of the rows of all ranks.

    The backward pass sums the gradients that all ranks have for each row.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, counts: list[int], rank: int, group: "dist.ProcessGroup | None"
    ) -> Tensor:
        ctx.counts = counts
        ctx.rank = rank
        ctx.group = group

        # Collectives need equal shapes, so shorter ranks are padded and the padding is cut off
        # again.
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: rows.shape[0]] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, group=group)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        # Features are small (N x C), so an all_reduce is cheap, and unlike reduce_scatter every
        # backend has it.
        grad = grad.contiguous().clone()
        dist.all_reduce(grad, group=ctx.group)
        start = sum(ctx.counts[: ctx.rank])
        return grad[start : start + ctx.counts[ctx.rank]], None, None, None


class GatherFeatures:
    """Collector of the rows of all ranks, with gradients.

    With it, a loss compares local rows with the global batch. A call with (n, ...) rows returns
    ``(all_rows, start)``: the (N, ...) rows in rank order, and the index of this rank's first row.
    Ranks may hold different n, also 0.

    The gradient of ``all_rows`` reaches the rank that owns a row as the SUM over ranks. Averaging
    parameter gradients over ranks (as DistributedDataParallel and DeepSpeed do) then gives the
    gradient of the mean over ranks of the losses.

    All ranks must make the same calls in the same order, with rows of the same dtype, and either
    all or none of them with a gradient.

    Raises:
        ValueError: a rank outside the world, or no process group.
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
        """Return the number of rows of each rank, in rank order."""
        own = torch.tensor([rows.shape[0]], device=rows.device, dtype=torch.int64)
        counts = [torch.empty_like(own) for _ in range(self.world_size)]
        dist.all_gather(counts, own, group=self.group)
        return torch.cat(counts).tolist()
