"""What goes wrong in one process: damaged checkpoints, full disks, numbers that are not finite,
signals."""

import errno
import json
import logging
import os
import shutil
import signal
import threading

import pytest
import torch
from clim_train.commands.main import main
from clim_train.methods.clim import ClimTask
from clim_train.run.checkpoints import CheckpointFolder, CheckpointWriteError
from clim_train.run.finite import FiniteWatch, NotFiniteError
from clim_train.run.manifest import MANIFEST, checksums, find_damage, write_manifest
from clim_train.run.metrics import read_metrics
from clim_train.run.stopping import StopRequest, TrainingStopped
from clim_train.trainer import Trainer
from tiny_training import (
    NoiseLoader,
    fit_until,
    small_command,
    tiny_config,
    tiny_model,
    tiny_trainer,
    with_run,
)


def losses(folder):
    return [line["loss"] for line in read_metrics(folder)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Losses of an uninterrupted run, and a folder that was killed at step 4."""
    folder = tmp_path_factory.mktemp("whole")
    tiny_trainer(tiny_config(folder / "run")).fit()
    fit_until(tiny_trainer(tiny_config(folder / "killed")), 4)
    return folder


@pytest.fixture
def killed(whole, tmp_path):
    """A run folder with whole checkpoints of steps 2 and 4."""
    return shutil.copytree(whole / "killed", tmp_path / "run")


def cut(path):
    os.truncate(path, path.stat().st_size - 1)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def halve(path):
    os.truncate(path, path.stat().st_size // 2)


def remove(path):
    path.unlink()


# -- damaged checkpoints -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "harm", "said"),
    [
        ("mp_rank_00_model_states.pt", cut, "instead of"),
        ("zero_pp_rank_0_mp_rank_00_optim_states.pt", flip, "other contents"),
        ("rank00000.pt", remove, "rank00000.pt is missing"),
        ("trainer.json", flip, "other contents"),
        (MANIFEST, halve, "manifest.json cannot be read"),
        (MANIFEST, remove, "manifest.json cannot be read"),
    ],
)
def test_damaged_checkpoint_is_passed_over(whole, killed, caplog, name, harm, said):
    harm(killed / "checkpoints" / "step-00000004" / name)
    with caplog.at_level(logging.WARNING, "clim_train"):
        trainer = tiny_trainer(tiny_config(killed), resume=True)
    assert trainer.step == 2
    warning = caplog.records[-1].getMessage()
    assert "step-00000004 is damaged" in warning
    assert said in warning
    assert "continues from" in warning
    assert (killed / "checkpoints" / "step-00000004.damaged").is_dir()
    trainer.fit()
    assert losses(killed) == losses(whole / "run")
    left = sorted(path.name for path in (killed / "checkpoints").glob("step-*"))
    assert left == ["step-00000004", "step-00000006"]


def test_no_whole_checkpoint_is_an_error(killed):
    for step in ("step-00000002", "step-00000004"):
        cut(killed / "checkpoints" / step / "trainer.json")
    with pytest.raises(
        ValueError, match=r"no checkpoint in .* is whole .*put back a copy of one, or delete"
    ):
        tiny_trainer(tiny_config(killed), resume=True)
    assert main(["convert", str(killed)]) == 2


def test_damaged_conversion_is_not_used(whole, killed, monkeypatch):
    assert main(["convert", str(killed)]) == 0
    universal = killed / "checkpoints" / "step-00000004.universal"
    assert find_damage(universal) is None
    flip(next(universal.rglob("exp_avg.pt")))
    saved = killed / "checkpoints" / "step-00000004"
    state = json.loads((saved / "trainer.json").read_text())
    (saved / "trainer.json").write_text(json.dumps({**state, "world_size": 2}))
    write_manifest(saved, checksums(saved))
    with pytest.raises(
        ValueError, match=r"universal is damaged .* delete it, then run `clim-train convert"
    ):
        tiny_trainer(tiny_config(killed), resume=True)


def test_manifest_cannot_point_elsewhere(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret").write_text("x")
    write_manifest(tmp_path / "inside", {"../secret": checksums(tmp_path)["secret"]})
    assert "outside" in find_damage(tmp_path / "inside")


def test_ranks_share_the_checksums(tmp_path):
    for i in range(5):
        (tmp_path / f"file{i}").write_text(str(i))
    shares = [checksums(tmp_path, rank, 2) for rank in (0, 1)]
    assert not shares[0].keys() & shares[1].keys()
    write_manifest(tmp_path, {**shares[0], **shares[1]})
    assert [find_damage(tmp_path, rank, 2) for rank in (0, 1)] == [None, None]
    flip(tmp_path / "file3")
    assert [find_damage(tmp_path, rank, 2) is None for rank in (0, 1)] == [True, False]


# -- full disk -----------------------------------------------------------------------------------


def no_space(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["first file", "last file", "mkdir", "manifest", "rename"])
def test_full_disk_at_save_keeps_the_checkpoints_before(whole, tmp_path, monkeypatch, where):
    config = tiny_config(tmp_path / "run")
    trainer = tiny_trainer(config)
    save = trainer.save

    def save_on_full_disk():
        if trainer.step != 4:
            return save()
        if where == "first file":
            monkeypatch.setattr(torch, "save", no_space)
        elif where == "last file":
            monkeypatch.setattr("clim_train.run_files.json.dumps", no_space)
        elif where == "mkdir":
            monkeypatch.setattr("pathlib.Path.mkdir", no_space)
        elif where == "manifest":
            monkeypatch.setattr("clim_train.run.checkpoints.write_manifest", no_space)
        else:
            monkeypatch.setattr("clim_train.run.checkpoints.os.rename", no_space)
        return save()

    trainer.save = save_on_full_disk
    with pytest.raises(CheckpointWriteError) as raised, trainer:
        trainer.fit()
    monkeypatch.undo()
    assert "checkpoint of step 4 could not be written (OSError: [Errno 28] No space left" in str(
        raised.value
    )
    assert str(raised.value).endswith(
        f"step-00000002. Make room, then `clim-train resume {tmp_path / 'run'}` continues"
    )
    left = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert left == ["latest", "step-00000002"]
    tiny_trainer(config, resume=True).fit()
    assert losses(tmp_path / "run") == losses(whole / "run")


def test_command_on_a_full_disk_ends_with_the_fix(shards, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("clim_train.run_files.write_json", no_space)
    assert main(small_command("clim_coco_vitb16", shards, tmp_path / "run")) == 1
    assert (
        "No space left on device: make room, then `clim-train resume RUN`"
        in capsys.readouterr().err
    )


def test_half_a_line_of_metrics_is_no_obstacle(whole, killed):
    with (killed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    assert len(read_metrics(killed)) == 4
    tiny_trainer(tiny_config(killed), resume=True).fit()
    assert losses(killed) == losses(whole / "run")


# -- not finite ----------------------------------------------------------------------------------


class Overflows(ClimTask):
    """In call `bad` of the loss, it (or with `gradient` only its gradient) is not a number."""

    bad, gradient, calls = 0, False, 0

    def loss(self, batch):
        self.calls += 1
        scalars = super().loss(batch)
        if self.calls == self.bad:
            broken = (0 * self.model.logit_scale).sqrt().sum() if self.gradient else float("nan")
            return {**scalars, "loss": scalars["loss"] + broken}
        return scalars


def overflowing(config, bad, *, gradient=False):
    task = Overflows(tiny_model(), lockstep=config.engine.zero_stage == 3)
    task.bad, task.gradient = bad, gradient
    return Trainer(config, task, NoiseLoader())


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_loss_that_is_not_finite_is_named_exactly(tmp_path, stage):
    """Two micro-batches per step, a line every four steps: the sixth micro-batch is found at the
    save of step 4."""
    config = with_run(
        tiny_config(tmp_path, zero_stage=stage, accumulation=2), log_every=100, save_every=2
    )
    with overflowing(config, bad=6) as trainer, pytest.raises(NotFiniteError) as raised:
        trainer.fit()
    assert raised.value.step == 3
    # Epochs of three batches give one step each, so step 3 begins epoch 3.
    loader = NoiseLoader()
    loader.load_state_dict({"epoch": 2, "position": 0})
    second = [batch for batch, _ in zip(loader, range(2))][1]
    assert raised.value.keys == {0: second.keys}
    message = str(raised.value)
    assert "the loss is not finite at step 3 (rank 0, batch of " + ", ".join(second.keys) in message
    assert f"{tmp_path / 'checkpoints' / 'step-00000002'} is the last good checkpoint" in message
    assert [path.name for path in CheckpointFolder(tmp_path / "checkpoints").complete()] == [
        "step-00000002"
    ]
    assert not (tmp_path / "model").exists()


def test_loss_that_is_not_finite_is_never_logged(tmp_path):
    config = with_run(tiny_config(tmp_path), log_every=2)
    with overflowing(config, bad=3) as trainer, pytest.raises(NotFiniteError, match="at step 3"):
        trainer.fit()
    assert [line["step"] for line in read_metrics(tmp_path)] == [2]
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_update_that_breaks_the_weights_is_never_saved(tmp_path):
    """The loss of the step that breaks them is finite, and there is no next one before the save."""
    with (
        overflowing(tiny_config(tmp_path, zero_stage=0), bad=4, gradient=True) as trainer,
        pytest.raises(
            NotFiniteError, match="weights are not finite after the update at step 4"
        ) as raised,
    ):
        trainer.fit()
    assert raised.value.keys[0]
    assert CheckpointFolder(tmp_path / "checkpoints").complete()[-1].name == "step-00000002"


@pytest.mark.parametrize(("stage", "precision"), [(1, "fp32"), (2, "bf16"), (3, "fp32")])
def test_gradients_that_are_not_finite_are_left_out_and_counted(tmp_path, stage, precision):
    """ZeRO does not take such a step; a run should not hide that."""
    overflowing(
        tiny_config(tmp_path, zero_stage=stage, precision=precision), bad=4, gradient=True
    ).fit()
    assert [line.get("updates_left_out", 0) for line in read_metrics(tmp_path)] == [
        0,
        0,
        0,
        1,
        1,
        1,
    ]


@pytest.mark.parametrize("stage", [1, 3])
def test_no_part_of_the_weights_is_saved_broken(tmp_path, stage):
    with tiny_trainer(tiny_config(tmp_path, zero_stage=stage)) as trainer:
        parameter = list(trainer.engine._engine.module.parameters())[-1]
        (parameter if stage < 3 else parameter.ds_tensor).data.view(-1)[0] = float("inf")
        with pytest.raises(NotFiniteError, match="weights are not finite"):
            trainer.save()
    assert not list((tmp_path / "checkpoints").iterdir())


def test_watching_does_not_wait_for_the_device():
    """Tensors without content cannot be waited for; `check` has to, and says so."""
    watch = FiniteWatch()
    watch.add(1, torch.empty((), device="meta"), {"keys": ["a"]})
    watch.add(1, torch.empty((), device="meta"), torch.zeros(1))
    with pytest.raises(RuntimeError, match="meta"):
        watch.check(None)


def test_rank_without_samples_is_named_as_such():
    error = NotFiniteError("the loss is not finite", 2, {0: ["0003", "0007"], 1: []}, None)
    assert "at step 2 (rank 0, batch of 0003, 0007; rank 1, no samples)" in str(error)


def test_command_says_what_to_do_about_a_loss_that_is_not_finite(
    shards, tmp_path, monkeypatch, capsys
):
    loss = ClimTask.loss
    monkeypatch.setattr(
        ClimTask, "loss", lambda task, batch: {"loss": loss(task, batch)["loss"] * float("inf")}
    )
    assert main(small_command("clim_coco_vitb16", shards, tmp_path / "run")) == 1
    error = capsys.readouterr().err
    assert "the loss is not finite at step 1 (rank 0, batch of 000" in error
    assert "lower optim.lr or with optim.clip_norm" in error


# -- stopping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_after_the_step_with_a_checkpoint(whole, tmp_path, number):
    before = signal.getsignal(number)
    config = with_run(tiny_config(tmp_path / "run"), save_every=100)
    trainer = tiny_trainer(config)
    forward_backward = trainer.engine.forward_backward

    def signalled(batch):
        if trainer.step == 2:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), signal.SIGTERM)  # a launcher sends it on: the same request
        return forward_backward(batch)

    trainer.engine.forward_backward = signalled
    with (
        trainer,
        pytest.raises(
            TrainingStopped, match=f"stopped at step 3, .* `clim-train resume {tmp_path / 'run'}`"
        ),
    ):
        trainer.fit()
    assert signal.getsignal(number) is before
    tiny_trainer(config, resume=True).fit()
    assert losses(tmp_path / "run") == losses(whole / "run")


def test_signal_in_the_last_step_changes_nothing(tmp_path):
    trainer = tiny_trainer(with_run(tiny_config(tmp_path, steps=2), save_every=100))
    save = trainer.save

    def save_signalled():
        os.kill(os.getpid(), signal.SIGTERM)
        return save()

    trainer.save = save_signalled
    trainer.fit()
    assert (tmp_path / "model").is_dir()


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


def test_signals_are_handled_inside_only_and_in_the_main_thread_only():
    before = handlers()
    with StopRequest() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.asked
        assert handlers() != before
    assert handlers() == before

    seen = []

    def elsewhere():
        with StopRequest():
            seen.append(handlers())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [before]
