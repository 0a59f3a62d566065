"""Further destinations of a run's metrics: TensorBoard, Weights & Biases, MLflow."""

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from clim_data.files import write_json

Options = Mapping[str, Mapping[str, Any]]
"""Section -> option -> value, of a run."""

IDS_FILE = "loggers.json"
"""File with the ids of a run at the services, with which a resumed run continues there."""


class LoggerOptions(Protocol):
    """The options that say where metrics go; the section `run` of a configuration has them."""

    @property
    def tensorboard(self) -> bool: ...

    @property
    def wandb(self) -> str | None: ...

    @property
    def mlflow(self) -> str | None: ...


class RunLogger(Protocol):
    """Takes the metrics of a run, on rank 0."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers of one step."""
        ...

    def close(self) -> None:
        """Write what is left, and end."""
        ...


def check_loggers(run: LoggerOptions) -> None:
    """Raise ImportError if the options name a service whose package is not installed.

    Call it before a model is loaded, which can take minutes.
    """
    for package, wanted in (("wandb", run.wandb), ("mlflow", run.mlflow)):
        if wanted is not None and importlib.util.find_spec(package) is None:
            install = "mlflow-skinny" if package == "mlflow" else package
            raise ImportError(
                f"--run.{package} {wanted} needs a package that is not installed: "
                f"pip install {install}, or leave the option out"
            )


def open_loggers(run: LoggerOptions, config: Options, folder: Path, start: int) -> list[RunLogger]:
    """Open the loggers that the options of a run name.

    Args:
        run: where the metrics go.
        config: all options of the run, which are written to the services, too.
        folder: of the run.
        start: number of finished steps; later steps of an interrupted run are written again.
    """
    found: list[RunLogger] = []
    if run.tensorboard:
        found.append(TensorBoard(folder / "tensorboard", start))
    if run.wandb is not None:
        found.append(Wandb(run.wandb, folder, config))
    if run.mlflow is not None:
        found.append(Mlflow(run.mlflow, folder, config))
    return found


class TensorBoard:
    """Event files in the run folder."""

    def __init__(self, folder: Path, start: int) -> None:
        # Imported here: it takes seconds, and the other ranks do not need it.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=start + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers of one step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left, and end."""
        self._writer.close()


class Wandb:
    """A run of Weights & Biases; WANDB_MODE=offline writes to the run folder alone.

    Args:
        project: its name there.
        folder: of the run, whose name is the run's name.
        config: its options.
    """

    def __init__(self, project: str, folder: Path, config: Options) -> None:
        import wandb

        self._run: Any = wandb.init(
            project=project,
            name=folder.name,
            dir=str(folder),
            id=read_id(folder, "wandb"),
            resume="allow",
            config=dict(flat_options(config)),
        )
        write_id(folder, "wandb", self._run.id)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers of one step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Write what is left, and end."""
        self._run.finish()


class Mlflow:
    """A run of MLflow; MLFLOW_TRACKING_URI says where.

    Args:
        experiment: its name there.
        folder: of the run, whose name is the run's name.
        config: its options.
    """

    def __init__(self, experiment: str, folder: Path, config: Options) -> None:
        from mlflow import MlflowClient

        self._client: Any = MlflowClient()
        found = self._client.get_experiment_by_name(experiment)
        self._id = read_id(folder, "mlflow")
        if self._id is None:
            number = found.experiment_id if found else self._client.create_experiment(experiment)
            self._id = self._client.create_run(number, run_name=folder.name).info.run_id
            write_id(folder, "mlflow", self._id)
            for name, value in flat_options(config):
                self._client.log_param(self._id, name, value)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers of one step."""
        for name, value in values.items():
            self._client.log_metric(self._id, mlflow_name(name), value, step=step)

    def close(self) -> None:
        """End the run there."""
        self._client.set_terminated(self._id)


def mlflow_name(name: str) -> str:
    """Return the name of a metric with the characters that MLflow takes: "R@1" is "R_1"."""
    return re.sub(r"[^\w./ -]", "_", name)


def flat_options(config: Options) -> Iterator[tuple[str, Any]]:
    """Yield name ("section.option") and value of all options of a configuration."""
    for section, options in config.items():
        for option, value in options.items():
            yield f"{section}.{option}", value


def read_id(folder: Path, service: str) -> str | None:
    """Return the id that the run has at a service, None for a new run."""
    path = folder / IDS_FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get(service)
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): remove it, and the service begins a new run"
        ) from error
    return found if isinstance(found, str) else None


def write_id(folder: Path, service: str, number: str) -> None:
    """Note the id of the run at a service."""
    path = folder / IDS_FILE
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_json(path, {**known, service: number}, indent=2)
