"""The folder that is named is the run: copied, moved, linked, and from elsewhere."""

import json
import os
import shutil

import pytest
from clim_train.commands.main import main
from clim_train.run.metrics import read_metrics
from tiny_training import fit_until, small_command, tiny_config, tiny_trainer


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def run(shards, tmp_path):
    options = small_command("clim_coco_vitb16", shards, tmp_path / "run", "--run.save-every=1")
    assert main(options) == 0
    return tmp_path / "run"


def test_export_of_a_copy_writes_into_the_copy_and_needs_no_data(run, tmp_path, capsys):
    config = json.loads((run / "config.json").read_text())
    config["data"]["shards"] = [str(tmp_path / "gone")]
    (run / "config.json").write_text(json.dumps(config))
    before = contents(run)
    copy = shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(copy / "model")
    assert main(["export", str(copy)]) == 0
    assert capsys.readouterr().out.split()[-1] == str(copy / "model")
    assert contents(run) == before
    model = "model/model.safetensors"
    assert (copy / model).read_bytes() == (run / model).read_bytes()


def test_resume_of_a_copy_trains_the_copy(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["schedule"]["steps"] = 3
    (copy / "config.json").write_text(json.dumps(config))
    before = contents(run)
    assert main(["resume", str(copy)]) == 0
    assert contents(run) == before
    assert [line["step"] for line in read_metrics(copy)] == [1, 2, 3]


def test_resume_from_another_directory_finds_relative_data(shards, tmp_path, monkeypatch):
    monkeypatch.chdir(shards.parent)
    options = small_command("clim_coco_vitb16", shards.name, tmp_path / "run")
    assert main(options) == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["resume", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize(
    "name",
    ["metrics.jsonl", "checkpoints", "model", "checkpoints/step-00000006.partial", "model/x.json"],
)
def test_links_to_outside_are_refused(tmp_path, name):
    fit_until(tiny_trainer(tiny_config(tmp_path / "run")), 2)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    path = tmp_path / "run" / name
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(precious)
    for command in ("resume", "export", "convert"):
        assert main([command, str(tmp_path / "run")]) == 2
    assert contents(precious) == {"file": b"mine"}


def test_links_under_names_of_drafts_are_not_followed(tmp_path):
    fit_until(tiny_trainer(tiny_config(tmp_path / "run")), 4)
    mine = tmp_path / "mine"
    mine.write_text("precious")
    for name in ("metrics.jsonl.tmp", "checkpoints/latest.tmp", "checkpoints/latest"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
    os.link(mine, tmp_path / "run" / "metrics.jsonl.tmp")
    (tmp_path / "run" / "checkpoints" / "step-00000008.partial").write_text("a file")
    (tmp_path / "run" / "checkpoints" / "a.old").symlink_to("step-00000004")
    tiny_trainer(tiny_config(tmp_path / "run"), resume=True).fit()
    assert mine.read_text() == "precious"
    left = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert left == ["latest", "step-00000004", "step-00000006"]


@pytest.mark.parametrize("about", ["", "[]", '{"processes": "8"}', '{"processes": 0}'])
def test_unknown_number_of_processes_is_a_sentence(run, about, capsys):
    (run / "versions.json").write_text(about)
    assert main(["resume", str(run)]) == 2
    assert "does not say how many processes" in capsys.readouterr().err


def test_pipe_as_configuration_is_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "config.json")
    assert main(["resume", str(tmp_path)]) == 2
    assert "give the folder of a run" in capsys.readouterr().err
