"""The parts of a training method. A new method is a module with a `Method`, and a line in
`table`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from clim_data.streams import StreamOptions

from clim_train.options.checks import check_choice
from clim_train.options.sections import EngineConfig
from clim_train.task import Loader, Task

Model = TypeVar("Model")
Options = TypeVar("Options")
Data = TypeVar("Data")

PRESETS = ("24gb", "12gb")
"""Names of the presets for one small GPU (`--preset`), by the memory of the GPU."""

SMALL_BATCHES: Mapping[str, int] = {"24gb": 2, "12gb": 1}
"""Images per micro-batch under each preset, for a loss that is a mean over images."""


@dataclass(frozen=True)
class MethodOptions:
    """The section `task` of a configuration; each method has its own subclass."""

    name: str

    def __post_init__(self) -> None:
        check_choice(self, "task", "name")


@dataclass(frozen=True)
class DataKind(Generic[Data]):
    """One kind of training data: its options, and the loader and batches made of them.

    Several methods can share a kind. `model_px` is the side of the images that the model was made
    for.
    """

    options: type[Data]
    """Frozen dataclass: the section `data` of a configuration. Its field `kind` names the kind."""

    loader: Callable[[Data, StreamOptions, int], Loader]
    """`loader(data, stream, model_px)`: this rank's batches. Raises ValueError or FileNotFoundError
    where the data are missing."""

    example_batch: Callable[[Data, int], Any]
    """`example_batch(data, model_px)`: a batch of zeros with the shapes that training will have."""

    largest_px: Callable[[Data], int]
    """Side of the largest images of a step."""

    with_px: Callable[[Data, int], Data] | None = None
    """`with_px(data, px)`: the same with `px` as the side of the largest images. None where the
    side is part of the method."""

    px_options: tuple[str, ...] = ()
    """Options that set the side of the images, such as "data.image-px": where the user gives one,
    `with_px` is not called."""

    @property
    def name(self) -> str:
        """The value of `data.kind`."""
        return _default(self.options, "kind")


@dataclass(frozen=True)
class BuildContext(Generic[Data]):
    """Inputs of a method besides its own options and the model."""

    engine: EngineConfig
    data: Data
    device: torch.device
    """The device that will train."""
    class_names: Sequence[str] | None = ()
    """Names of the loader's classes. None where only shapes count (`clim-train estimate`): then
    nothing is read or computed, and embeddings of any value will do."""
    trained_names: Sequence[str] = ()
    """The classes that have data, for methods that train on some classes only."""
    image_counts: Sequence[int] = ()
    """Number of images of each class, where the loader knows it."""


@dataclass(frozen=True)
class Method(Generic[Model, Options, Data]):
    """One way to train: its options, its data, and how its task is built."""

    name: str
    """The value of `task.name`."""

    options: type[Options]
    """Frozen dataclass: the section `task` of a configuration. Its field `name` names the
    method."""

    data: DataKind[Data]

    build: Callable[[Options, Model, BuildContext[Data]], Task]
    """Makes the task. Called before the model is trained, so a teacher can be a copy of it."""

    gradient_path: Callable[[Options, Data], str]
    """`path` of `RegionModel.freeze`: the part of the image tower that gets gradients."""

    check: Callable[[Options, Data], None] | None = None
    """`check(options, data)` raises ValueError where the two do not fit."""

    title: str = ""
    """Name for people, such as "CLIPSelf"; "" is `name`."""

    micro_batch: Mapping[str, int] | None = None
    """Images per micro-batch under each of `PRESETS`. None keeps all images of a step together."""

    def __post_init__(self) -> None:
        named = _default(self.options, "name")
        if named != self.name:
            raise ValueError(
                f"the method {self.name!r} has options of {named!r}: give {self.options.__name__} "
                "a field "
                f"`name: Literal[{self.name!r}] = {self.name!r}`"
            )
        if self.micro_batch is not None and set(self.micro_batch) != set(PRESETS):
            raise ValueError(
                f"micro_batch of {self.name!r} is for {sorted(self.micro_batch)}: "
                f"give one number for each of {', '.join(PRESETS)}, or None"
            )


def _default(options: type, name: str) -> str:
    value = getattr(options, name, None)
    if not isinstance(value, str):
        raise ValueError(
            f"{options.__name__} has no {name!r} with a default: it is what config.json calls "
            "these options"
        )
    return value
