"""What a training method has to offer to be trained by `Trainer`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class Task(Protocol):
    """A model and a loss. Any object with these members can be trained.

    A task may also have `parameter_bounds`: a dict from parameter name to (lowest, highest) value,
    applied after each step.
    """

    @property
    def model(self) -> nn.Module:
        """The module that holds everything that trains.

        Parts without a trainable parameter stay out of the engine: they are neither partitioned nor
        checkpointed, and stay in evaluation mode.
        """
        ...

    def loss(self, batch: Any) -> dict[str, Tensor]:
        """Return scalars of one micro-batch of this rank.

        "loss" has the gradient, the others are logged. Gradients are averaged over ranks, so the
        mean of "loss" over ranks is minimised.
        """
        ...

    def trainable_parameters(self) -> Mapping[str, nn.Parameter]:
        """Return what the optimizer gets, under the names of `model.named_parameters()`."""
        ...

    def save(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Write the model in the form that users load.

        Args:
            state: the weights, a whole state dict of `model`.
        """
        ...


class Loader(Protocol):
    """Batches of this rank, with a position that can be saved and continued.

    Every rank has the same number of batches.
    """

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """Yield what is left of the current epoch; the next call begins the next epoch.

        Batches are as in `to_device`.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the position, as JSON holds it."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a position."""
        ...
