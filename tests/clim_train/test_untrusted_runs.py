"""Run folders from elsewhere: nothing in their checkpoints or configuration is executed."""

import contextlib
import dataclasses
import json
import os
import pickle
import shutil
import zipfile

import pytest
import torch
from clim_train.commands.main import PROGRAM, main
from clim_train.commands.runs import check_outputs_are_there
from clim_train.config import TrainConfig
from clim_train.engine import deepspeed_compat
from clim_train.engine.deepspeed_compat import only_tensors
from clim_train.options import OUTPUT
from clim_train.run.manifest import checksums, find_damage, write_manifest
from tiny_training import fit_until, small_command, tiny_config, tiny_trainer


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Interrupted runs at stages 0, 1 and 3, those of 1 and 3 converted."""
    folder = tmp_path_factory.mktemp("runs")
    for stage in (0, 1, 3):
        fit_until(tiny_trainer(tiny_config(folder / str(stage), zero_stage=stage)), 2)
        if stage:
            assert main(["convert", str(folder / str(stage))]) == 0
    return folder


def poison(path, proof, *, raw):
    """Adds a payload to a file; `raw`: as a bare pickle instead of torch's archive."""
    content = {"module": Payload(proof)}
    if raw:
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)


FILES = [
    (0, "mp_rank_00_model_states.pt"),
    (1, "mp_rank_00_model_states.pt"),
    (1, "zero_pp_rank_0_mp_rank_00_optim_states.pt"),
    (1, "rank00000.pt"),
    (3, "zero_pp_rank_0_mp_rank_00_model_states.pt"),
    (3, "zero_pp_rank_0_mp_rank_00_optim_states.pt"),
]


@pytest.mark.parametrize(("stage", "name"), FILES, ids=lambda value: str(value))
@pytest.mark.parametrize("raw", [False, True], ids=["archive", "pickle"])
def test_resume_executes_nothing(runs, tmp_path, stage, name, raw):
    run = shutil.copytree(runs / str(stage), tmp_path / "run")
    checkpoint, proof = run / "checkpoints" / "step-00000002", tmp_path / "proof"
    poison(checkpoint / name, proof, raw=raw)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(checkpoint / name, weights_only=True)
    write_manifest(checkpoint, checksums(checkpoint))
    trainer, linear = None, torch.nn.functional.linear
    with pytest.raises(ValueError, match="holds Python objects that could run code"):
        trainer = tiny_trainer(tiny_config(run, zero_stage=stage), resume=True)
    assert trainer is None
    assert torch.nn.functional.linear is linear
    assert not proof.exists()
    with contextlib.suppress(RuntimeError):  # a bare pickle is run, then misses the rest
        torch.load(checkpoint / name, weights_only=False)
    assert proof.exists()  # the file would have done it


@pytest.mark.parametrize("stage", [1, 3])
@pytest.mark.parametrize("kind", ["model_states", "optim_states"])
def test_convert_executes_nothing(runs, tmp_path, stage, kind, capsys):
    run = shutil.copytree(runs / str(stage), tmp_path / "run")
    checkpoint, proof = run / "checkpoints" / "step-00000002", tmp_path / "proof"
    shutil.rmtree(checkpoint.with_name(checkpoint.name + ".universal"))
    poison(next(checkpoint.glob(f"*{kind}.pt")), proof, raw=False)
    write_manifest(checkpoint, checksums(checkpoint))
    assert main(["convert", str(run)]) == 2
    assert "holds Python objects that could run code" in capsys.readouterr().err
    assert not proof.exists()


@pytest.mark.parametrize("stage", [1, 3])
@pytest.mark.parametrize("pattern", ["zero/optimizer_state.pt", "zero/*/fp32.pt"])
def test_resume_of_a_conversion_executes_nothing(runs, tmp_path, stage, pattern):
    run = shutil.copytree(runs / str(stage), tmp_path / "run")
    checkpoint, proof = run / "checkpoints" / "step-00000002", tmp_path / "proof"
    universal = checkpoint.with_name(checkpoint.name + ".universal")
    for path in universal.glob(pattern):
        poison(path, proof, raw=False)
    state = json.loads((checkpoint / "trainer.json").read_text())
    (checkpoint / "trainer.json").write_text(json.dumps({**state, "world_size": 2}))
    for folder in (checkpoint, universal):
        write_manifest(folder, checksums(folder))
    with pytest.raises(ValueError, match="holds Python objects that could run code"):
        tiny_trainer(tiny_config(run, zero_stage=stage), resume=True)
    assert not proof.exists()


@pytest.mark.parametrize("stage", [0, 1])
def test_each_file_is_checked_once_when_a_run_continues(runs, tmp_path, monkeypatch, stage):
    run = shutil.copytree(runs / str(stage), tmp_path / "run")
    checked = []
    monkeypatch.setattr(deepspeed_compat, "check_archive", lambda path: checked.append(path.name))
    trainer = tiny_trainer(tiny_config(run, zero_stage=stage), resume=True)
    trainer.close()
    files = (run / "checkpoints" / "step-00000002").glob("*.pt")
    assert sorted(checked) == sorted(path.name for path in files)


def test_what_deepspeed_saves_is_let_through(tmp_path):
    """Also the loss scaler of fp16, which only a GPU can save."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler

    scaler = DynamicLossScaler(2.0**10, 2.0, 1000, 1.0, 2, False, dtype=torch.half)
    torch.save({"loss_scaler": scaler}, tmp_path / "state.pt")
    with only_tensors(tmp_path):
        again = torch.load(tmp_path / "state.pt", weights_only=False)["loss_scaler"]
    assert vars(again) == vars(scaler)


def test_an_archive_that_unpacks_to_far_more_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "zero").mkdir()
    path = tmp_path / "zero" / "state.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("state/data.pkl", b"\0" * (100 << 20))
    with (
        pytest.raises(ValueError, match=r"state\.pt unpacks to 0\.1 GB, far more than its size"),
        only_tensors(tmp_path),
    ):
        pytest.fail("it was let through")


def test_whole_pickles_are_read_again_afterwards(tmp_path):
    (tmp_path / "value.pt").write_bytes(
        pickle.dumps({"x": Payload(tmp_path / "proof")}, protocol=2)
    )
    with pytest.raises(ValueError), only_tensors(tmp_path):
        torch.load(tmp_path / "value.pt", weights_only=False)
    assert not (tmp_path / "proof").exists()
    with pytest.raises(
        RuntimeError, match="magic number"
    ):  # it runs the pickle, then misses the rest
        torch.load(tmp_path / "value.pt", weights_only=False)
    assert (tmp_path / "proof").exists()


@pytest.mark.parametrize("source", ["pipe:touch {}", "{{pipe:touch {},none.tar}}", "file://{}"])
def test_commands_in_a_configuration_are_not_run(shards, tmp_path, capsys, source):
    run, proof = tmp_path / "run", tmp_path / "proof"
    assert main(small_command("clim_coco_vitb16", shards, run)) == 0
    config = json.loads((run / "config.json").read_text())
    config["data"]["shards"] = [source.format(proof)]
    (run / "config.json").write_text(json.dumps(config))
    for command in ("resume", "export"):
        assert main([command, str(run)]) == 2
        assert (
            "may run a command: look at it, and if you trust it, say so with --trust"
            in capsys.readouterr().err
        )
    assert not proof.exists()


def test_trusted_commands_run(shards, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIM_DATA_CACHE", str(tmp_path / "cache"))
    run, proof = tmp_path / "run", tmp_path / "proof"
    assert main(small_command("clim_coco_vitb16", shards, run)) == 0
    config = json.loads((run / "config.json").read_text())
    config["data"]["shards"] = [
        f"pipe:touch {proof}; cat {path}" for path in sorted(shards.glob("*.tar"))
    ]
    (run / "config.json").write_text(json.dumps(config))
    assert (
        main(["resume", str(run), "--trust"]) == 2
    )  # these shards have other names than those of the run
    assert proof.exists()


def test_processes_of_the_start_decide_the_global_batch(tmp_path, monkeypatch):
    """Not those of the last checkpoint: a run that went from 1 to 2 processes stays on 2 at the
    next resume."""
    config = tiny_config(tmp_path)
    fit_until(tiny_trainer(config), 2)
    saved = tmp_path / "checkpoints" / "step-00000002"
    state = json.loads((saved / "trainer.json").read_text())
    (saved / "trainer.json").write_text(json.dumps({**state, "world_size": 2}))
    seen = []
    monkeypatch.setattr(
        "clim_train.commands.runs.RunProgram.train",
        lambda program, config, resuming: seen.append(config.data.batch_size),
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    PROGRAM.resume(str(tmp_path))
    assert seen == [config.data.batch_size // 2]
    assert TrainConfig.load(tmp_path) == config
    assert find_damage(saved) is not None


@pytest.mark.parametrize("name", ["local-dir:{}", "hf-hub:owner/name", "{}"])
def test_models_in_a_configuration_are_those_that_open_clip_lists(tmp_path, capsys, name):
    run = tmp_path / "run"
    fit_until(tiny_trainer(tiny_config(run)), 2)
    config = json.loads((run / "config.json").read_text())
    config["model"]["name"] = name.format(tmp_path)
    (run / "config.json").write_text(json.dumps(config))
    for command in ("resume", "export"):
        assert main([command, str(run)]) == 2
        assert "if you trust it, say so with --trust" in capsys.readouterr().err


def test_a_new_place_to_write_to_has_to_be_made_or_trusted(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Cache:
        folder: str | None = dataclasses.field(default=None, metadata=OUTPUT)

    @dataclasses.dataclass(frozen=True)
    class Options:
        cache: Cache

    check_outputs_are_there(Options(Cache()), "run")
    check_outputs_are_there(Options(Cache(str(tmp_path))), "run")
    elsewhere = str(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"writes to '.*elsewhere' \(cache\.folder\)"):
        check_outputs_are_there(Options(Cache(elsewhere)), "run")
    assert os.listdir(tmp_path) == []
