"""Copies from the host to the device that the host does not wait for."""

from typing import TypeVar

import torch

Movable = TypeVar("Movable")


def to_device(value: Movable, device: torch.device) -> Movable:
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
    return value.pin_memory().to(device, non_blocking=True)
