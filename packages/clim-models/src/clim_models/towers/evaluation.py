"""Run a model in evaluation mode, and restore its mode afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Switchable(Protocol):
    """An object with a training mode, such as an `nn.Module`."""

    training: bool

    def train(self, mode: bool) -> Any: ...


@contextmanager
def evaluation_mode(model: Switchable) -> Iterator[None]:
    """Set evaluation mode inside the block, and restore the earlier mode after it, also on an
    error."""
    was_training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(was_training)
