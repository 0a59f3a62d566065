"""The configuration of a run, as frozen dataclasses: checked when built, stored in `config.json`.

A recipe (see `clim_train.recipes`) is a function that returns one `TrainConfig`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clim_train.methods.clim import ClimConfig
from clim_train.methods.method import MethodOptions
from clim_train.methods.pairs import PairDataConfig
from clim_train.methods.sources import SourceOptions
from clim_train.methods.table import METHODS, check_match, data_kinds
from clim_train.options.json_files import JsonConfig
from clim_train.options.sections import (
    EngineConfig,
    EvaluationConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
)


@dataclass(frozen=True)
class TrainConfig(JsonConfig):
    """All options of a run; `from_json` reads what `to_json` writes.

    `task` has the options of a method of `clim_train.methods.table.METHODS`, `data` those of its
    kind of data. Raises ValueError where the two do not belong together.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: SourceOptions = field(default_factory=PairDataConfig)
    task: MethodOptions = field(default_factory=ClimConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        check_match(self.task, self.data)

    @classmethod
    def variants(cls) -> Mapping[type, Sequence[type]]:
        """Return the classes that may stand where a section is declared by its base class."""
        return {
            SourceOptions: [kind.options for kind in data_kinds().values()],
            MethodOptions: [method.options for method in METHODS.values()],
        }
