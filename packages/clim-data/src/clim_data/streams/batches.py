"""The base of all batches: its tensors move together."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class TensorBatch:
    """A batch whose fields are tensors, lists of tensors, lists of texts, or such batches."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return a copy of the batch with its tensors on `device`."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return a copy in page-locked memory, for copies to a GPU while it works.

        Tensors that are on a device already stay there.
        """
        return self._with_tensors(
            lambda tensor: tensor.pin_memory() if tensor.device.type == "cpu" else tensor
        )

    def _with_tensors(self, move: Callable[[Tensor], Tensor]) -> Self:
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                moved[field.name] = move(value)
            elif isinstance(value, TensorBatch):
                moved[field.name] = value._with_tensors(move)
            elif isinstance(value, list) and value and isinstance(value[0], Tensor):
                moved[field.name] = [move(tensor) for tensor in value]
        return replace(self, **moved)
