"""Batch norms whose statistics are those of all ranks, on any device.

torch's SyncBatchNorm has no CPU version; on CPUs the same arithmetic runs here.
"""

import torch
from clim_data.processes import Ranks
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class SharedBatchNorm(nn.SyncBatchNorm):
    """Batch norm over the images of all ranks.

    On a GPU it is torch's. On a CPU, sums go through `all_reduce`, which has a gradient. A rank
    without rows takes part, so that the others do not wait for it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w); N differs from rank to rank."""
        if not self.training or x.device.type != "cpu":
            return super().forward(x)

        mean, variance, count = shared_moments(x)
        with torch.no_grad():
            self._remember(mean, variance, count)
        scale = self.weight / (variance + self.eps).sqrt()
        shift = self.bias - mean * scale
        normal = x.float() * scale[:, None, None] + shift[:, None, None]
        return normal.to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics towards those of a step."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        # A step without any row has no statistics.
        if not count:
            return
        self.num_batches_tracked.add_(1)
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)


def shared_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean (C,), variance (C,) and number of the values of each channel on all ranks.

    Args:
        x: (N, C, h, w); N may be 0.
    """
    values = x.float()
    own = values.new_full((1,), x.shape[0] * x.shape[2] * x.shape[3])
    total = all_reduce(torch.cat([own, values.sum((0, 2, 3))]))
    count = total[0].detach()
    mean = total[1:] / count.clamp(min=1)

    # In a second pass: a difference of large sums would lose digits.
    squares = (values - mean[:, None, None]).square().sum((0, 2, 3))
    variance = all_reduce(squares) / count.clamp(min=1)
    return mean, variance, count


def share_norms(module: nn.Module, *, leave: nn.Module | None = None) -> None:
    """Replace the batch norms of a module, in place, where there are several ranks.

    Args:
        module: its norms keep their weights and statistics.
        leave: a frozen part, which stays as it is.
    """
    if Ranks.of_group().world_size == 1:
        return
    for name, child in module.named_children():
        if child is leave:
            continue
        if isinstance(child, nn.BatchNorm2d):
            shared = SharedBatchNorm(child.num_features, child.eps, child.momentum)
            shared.to(next(child.parameters()).device)
            shared.load_state_dict(child.state_dict())
            shared.train(child.training)
            module.add_module(name, shared)
        else:
            share_norms(child, leave=leave)
