"""Matrix products by the faster of the two libraries that torch has for float32 on a CPU.

torch multiplies with MKL, which holds back on AMD's processors. oneDNN, which torch uses for
convolutions and for compiled models, does not: 200 instead of 100 GFLOP/s on one core with AVX-512.
It is reached by an operator that knows no gradient, so that it serves where none is wanted; the
numbers agree up to rounding.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def matmul(a: Tensor, b: Tensor, *, plus: Tensor | None = None) -> Tensor:
    """(N, M, C) @ (N, C, K), plus (N, M, K) -> (N, M, K)."""
    if len(a) == 1 and _by_onednn(a, b):
        return linear(a, b[0].T, plus=plus)
    return torch.bmm(a, b) if plus is None else torch.baddbmm(plus, a, b)


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, plus: Tensor | None = None
) -> Tensor:
    """x (..., C) times weight (K, C), plus bias (K,), plus (..., K), which may be broadcast ->
    (..., K)."""
    if not _by_onednn(x, weight):
        y = F.linear(x, weight, bias)
        return y if plus is None else y + plus
    if plus is None:
        return _onednn()(x, weight, bias, "none", [], "")
    same = plus.expand(*x.shape[:-1], len(weight))  # the operator itself does not broadcast
    return _onednn().binary(x, same, weight, bias, "add")


def _by_onednn(*factors: Tensor) -> bool:
    return (
        all(f.device.type == "cpu" and f.dtype is torch.float32 for f in factors)
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.enabled
        and _onednn() is not None
    )


@cache
def _onednn() -> Any:
    """torch's operator, which is not part of its public interface: tried once, and None where it is
    not as known."""
    if not torch.backends.mkldnn.is_available():
        return None
    x, weight, bias = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3), torch.arange(4.0)
    wanted = x @ weight.T + bias
    try:
        operator = torch.ops.mkldnn._linear_pointwise
        found = (
            operator(x, weight, bias, "none", [], ""),
            operator.binary(x, wanted, weight, bias, "add") - wanted,
        )
    except (AttributeError, RuntimeError, TypeError):
        return None
    return operator if all(torch.equal(y, wanted) for y in found) else None
