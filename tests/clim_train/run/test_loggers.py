"""Metrics that go to services: stand-ins of their packages note what they are told."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
from clim_train.commands.main import main
from clim_train.options.sections import RunConfig
from clim_train.run.loggers import check_loggers, mlflow_name, read_id
from clim_train.run.metrics import read_metrics
from tiny_training import small_command


class StubWandb(ModuleType):
    """`wandb`, as far as we use it."""

    def __init__(self):
        super().__init__("wandb")
        self.runs = []

    def init(self, **options):
        run = SimpleNamespace(id=options["id"] or f"run{len(self.runs)}", logged=[], ended=False)
        run.log = lambda values, step: run.logged.append((step, values))
        run.finish = lambda: setattr(run, "ended", True)
        run.options = options
        self.runs.append(run)
        return run


class StubMlflow(ModuleType):
    """`mlflow`, as far as we use it: one client, which notes its calls."""

    def __init__(self):
        super().__init__("mlflow")
        self.params, self.metrics, self.ended = {}, [], []

    def MlflowClient(self):  # the name there
        return self

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return f"experiment {name}"

    def create_run(self, experiment, run_name):
        self.made = (experiment, run_name)
        return SimpleNamespace(info=SimpleNamespace(run_id="m1"))

    def log_param(self, run, name, value):
        self.params[name] = value

    def log_metric(self, run, name, value, step):
        self.metrics.append((run, step, name))

    def set_terminated(self, run):
        self.ended.append(run)


@pytest.fixture
def wandb(monkeypatch):
    stub = StubWandb()
    monkeypatch.setitem(sys.modules, "wandb", stub)
    monkeypatch.setattr("clim_train.run.loggers.importlib.util.find_spec", lambda name: stub)
    return stub


@pytest.fixture
def mlflow(monkeypatch):
    stub = StubMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", stub)
    monkeypatch.setattr("clim_train.run.loggers.importlib.util.find_spec", lambda name: stub)
    return stub


def test_a_run_and_its_continuation_are_one_run_of_wandb(wandb, shards, tmp_path):
    folder = tmp_path / "mine"
    options = small_command("clim_coco_vitb16", shards, folder, "--run.wandb=regions")
    assert main(options) == 0
    assert main(["resume", str(folder)]) == 0

    first, again = wandb.runs
    assert first.options["project"] == "regions"
    assert first.options["config"]["data.batch_size"] == 31
    assert [step for step, _ in first.logged] == [line["step"] for line in read_metrics(folder)]
    assert first.logged[0][1]["loss"] == read_metrics(folder)[0]["loss"]
    assert again.id == first.id == read_id(folder, "wandb")
    assert first.ended
    assert again.ended


def test_metrics_reach_mlflow(mlflow, shards, tmp_path):
    folder = tmp_path / "mine"
    options = small_command("clim_coco_vitb16", shards, folder, "--run.mlflow=regions")
    assert main(options) == 0

    assert mlflow.made == ("experiment regions", "mine")
    assert mlflow.params["schedule.steps"] == 2
    assert ("m1", 2, "loss") in mlflow.metrics
    assert mlflow.ended == ["m1"]


def test_names_that_mlflow_takes():
    assert mlflow_name("retrieval/t2i.R@1") == "retrieval/t2i.R_1"


@pytest.mark.parametrize(("package", "install"), [("wandb", "wandb"), ("mlflow", "mlflow-skinny")])
def test_a_missing_package_is_said_before_anything_is_loaded(package, install, monkeypatch):
    monkeypatch.setattr("clim_train.run.loggers.importlib.util.find_spec", lambda name: None)
    check_loggers(RunConfig())
    with pytest.raises(ImportError, match=f"pip install {install}"):
        check_loggers(RunConfig(**{package: "x"}))


def test_damaged_ids_are_named(tmp_path):
    (tmp_path / "loggers.json").write_text("{")
    with pytest.raises(ValueError, match="remove it"):
        read_id(tmp_path, "wandb")
