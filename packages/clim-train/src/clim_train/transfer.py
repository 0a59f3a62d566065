"""Copies from the host to the device that the host does not wait for."""

from typing import Protocol, Self, TypeVar

import torch


class Movable(Protocol):
    """A tensor, or a batch of them."""

    def to(self, device: torch.device) -> Self:
        """Return a copy on `device`."""
        ...


Item = TypeVar("Item", bound=Movable)


def to_device(value: Item, device: torch.device) -> Item:
    """Copy a tensor or a batch to `device`, in the order of the work that is queued there.

    A plain `.to` from ordinary memory ends when the GPU has done all that was queued before, so
    that Python could not prepare the next step meanwhile. From page-locked memory the copy is
    queued like a kernel.

    Args:
        value: has `.to(device)`; where it also has `.pin_memory()`, `.to` must accept
            `non_blocking`.
    """
    if device.type != "cuda" or not hasattr(value, "pin_memory"):
        return value.to(device)
    if getattr(value, "is_cuda", False):
        return value.to(device)  # only memory of the host can be page-locked
    return value.pin_memory().to(device, non_blocking=True)
