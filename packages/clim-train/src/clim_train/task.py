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

    model: nn.Module
    """Holds everything that trains. Parts without a trainable parameter stay out of the engine:
    they are neither partitioned nor checkpointed, and stay in evaluation mode."""

    def loss(self, batch: Any) -> dict[str, Tensor]:
        """Scalars of one micro-batch of this rank: "loss" has the gradient, the others are logged.

        The mean of "loss" over ranks is what is minimised: gradients are averaged over ranks.
        """
        ...

    def trainable_parameters(self) -> Mapping[str, nn.Parameter]:
        """Names, as in `model.named_parameters()`, and parameters that the optimizer gets."""
        ...

    def save(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """Write the model with the weights `state` (the whole state dict of `model`) in the form
        users load."""
        ...


class Loader(Protocol):
    """Batches of this rank. Every rank has the same number, and a position that can be saved and
    continued."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]:
        """What is left of the current epoch; the next call begins the next epoch. Batches are
        as in `to_device`."""
        ...

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...
