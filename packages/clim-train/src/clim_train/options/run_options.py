"""The sections of a configuration that trainer, engine and estimate read."""

from typing import Any, ClassVar, Protocol

from clim_train.options.sections import EngineConfig, OptimConfig, RunConfig, ScheduleConfig


class BatchOptions(Protocol):
    """The one option of the data that the trainer needs."""

    @property
    def batch_size(self) -> int:
        """Images per rank and micro-batch."""
        ...


class RunOptions(Protocol):
    """A frozen dataclass with these sections; others are for the code that builds the parts.

    `clim_train.TrainConfig` is one. Inherit from `JsonConfig` to write another.
    """

    # Says that `dataclasses.replace` accepts it.
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def data(self) -> BatchOptions: ...

    @property
    def optim(self) -> OptimConfig: ...

    @property
    def schedule(self) -> ScheduleConfig: ...

    @property
    def engine(self) -> EngineConfig: ...

    @property
    def run(self) -> RunConfig: ...

    def to_json(self) -> str:
        """Return the text of the run folder's `config.json`."""
        ...
