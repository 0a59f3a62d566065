"""Run a model in evaluation mode and give it back as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Switchable(Protocol):
    """What has a training mode, such as an `nn.Module`."""

    training: bool

    def train(self, mode: bool) -> Any: ...


@contextmanager
def evaluation_mode(model: Switchable) -> Iterator[None]:
    """Set evaluation mode inside the block, and the mode of before after it, also on an error."""
    was_training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(was_training)
