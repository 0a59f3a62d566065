"""What a run does, as frozen dataclasses: checked when built, written to `config.json`, overridden
on the command line.

A recipe (see `clim_train.recipes`) is a function that returns one `TrainConfig`.
"""

from dataclasses import dataclass, field

from clim_train.methods.clim import ClimConfig
from clim_train.methods.pairs import PairDataConfig
from clim_train.methods.table import DataConfig, TaskConfig, check_match
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
    """Everything a run depends on. `to_json` and `from_json` round-trip it."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=PairDataConfig)
    task: TaskConfig = field(default_factory=ClimConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        check_match(self.task, self.data)
