"""Trainings that are killed, stopped or starved, alone and in pairs: nothing is lost, nobody waits
for ever."""

import json
import shutil
import signal
import tarfile
from pathlib import Path

import pytest
from clim_train.commands.main import main
from clim_train.run.checkpoints import CheckpointFolder
from clim_train.run.metrics import read_metrics
from clim_train.run.stopping import EXIT_STOPPED
from tiny_training import tiny_config, tiny_trainer
from tolerance import SAME_LOSSES
from two_processes import run_ranks


def losses(folder):
    return [line["loss"] for line in read_metrics(folder)]


def break_picture(shards, key):
    """Overwrites the bytes of one picture; its size and the tar around it stay as they were."""
    for path in shards.glob("*.tar"):
        with tarfile.open(path) as tar:
            member = next((m for m in tar if m.name == f"{key}.png"), None)
        if member is not None:
            with path.open("r+b") as file:
                file.seek(member.offset_data)
                file.write(b"\0" * member.size)
            return
    raise AssertionError(f"{key} is not in {shards}")


@pytest.fixture(scope="module")
def ran(shards, tmp_path_factory):
    """Folder of what the processes left, and how they ended."""
    folder = tmp_path_factory.mktemp("faults")
    shutil.copytree(shards, folder / "shards")
    break_picture(folder / "shards", "00007")
    script = Path(__file__).parents[1] / "workers" / "fault_processes.py"
    ended = run_ranks(script, [str(folder), str(shards)], folder / "all")
    assert ended == [0], (folder / "all.0.log").read_text()[-4000:]
    return folder


@pytest.fixture(scope="module")
def ended(ran):
    return {
        name: [status for status, _ in of]
        for name, of in json.loads((ran / "ended.json").read_text()).items()
    }


def log(ran, name, rank=0):
    return (ran / f"{name}.{rank}.log").read_text()


def test_killed_while_a_checkpoint_is_written(ran, ended, tmp_path):
    assert ended["killed"] == [-signal.SIGKILL]
    checkpoints = ran / "killed" / "checkpoints"
    assert any((checkpoints / "step-00000004.partial").iterdir())
    assert CheckpointFolder(checkpoints).complete()[-1].name == "step-00000002"
    trainer = tiny_trainer(tiny_config(ran / "killed"), resume=True)
    assert trainer.step == 2
    trainer.fit()
    tiny_trainer(tiny_config(tmp_path / "whole")).fit()
    assert losses(ran / "killed") == losses(tmp_path / "whole")


def test_command_stops_when_its_process_group_is_signalled(ran, ended):
    """Its workers get the signal, too; the step is finished, a checkpoint saved, and the next
    command named."""
    assert ended["stopped"] == [EXIT_STOPPED], log(ran, "stopped")
    step = int(
        CheckpointFolder(ran / "stopped" / "checkpoints").complete()[-1].name.removeprefix("step-")
    )
    assert 3 <= step == read_metrics(ran / "stopped")[-1]["step"]
    assert (
        f"stopped at step {step}, checkpoint saved: `clim-train resume {ran / 'stopped'}` continues"
        in log(ran, "stopped")
    )
    assert "Traceback" not in log(ran, "stopped")


def test_second_signal_aborts_at_once(ran, ended):
    assert ended["twice"] == [-signal.SIGINT]
    assert [line["step"] for line in read_metrics(ran / "twice")] == [1, 2]
    assert CheckpointFolder(ran / "twice" / "checkpoints").complete()[-1].name == "step-00000002"


@pytest.fixture(scope="module")
def agreed(ran, ended):
    assert ended["agreed"] == [0, 0], log(ran, "agreed", 0)[-2000:] + log(ran, "agreed", 1)[-2000:]
    return [json.loads((ran / f"agreed.{rank}.json").read_text()) for rank in (0, 1)]


def test_signal_to_one_rank_stops_both_at_the_same_step(ran, agreed):
    assert agreed[0]["stopped2"] == agreed[1]["stopped2"]
    assert (
        "stopped at step 4, checkpoint saved" in agreed[0]["stopped2"]
    )  # asked in step 3, agreed in the next
    assert losses(ran / "stopped2") == pytest.approx(losses(ran / "whole2"), rel=SAME_LOSSES)


def test_full_disk_of_one_rank_ends_both_and_keeps_what_was_there(ran, agreed):
    for reports in agreed:
        assert "the checkpoint of step 4 could not be written (rank 1: " in reports["full2"]
        assert "step-00000002. Make room, then `clim-train resume" in reports["full2"]
        assert reports["left in full2"] == ["latest", "step-00000002"]
    # Memory is aligned otherwise after what failed in between, which rounds the last digit
    # otherwise.
    assert losses(ran / "full2") == pytest.approx(losses(ran / "whole2"), rel=SAME_LOSSES)


def test_loss_of_one_rank_that_is_not_finite_ends_both(ran, agreed):
    for reports in agreed:
        assert "the loss is not finite at step 3 (rank 1, batch of " in reports["nan2"]
        assert "no checkpoint was written before" in reports["nan2"]
    assert not list((ran / "nan2" / "checkpoints").glob("step-*"))
    assert read_metrics(ran / "nan2") == []


def test_corrupt_input_of_one_rank_ends_both(ran, ended):
    """Exit status 2 where the input is broken, 1 where another rank failed; both name the
    picture."""
    assert sorted(ended["corrupt"]) == [1, 2], (
        log(ran, "corrupt", 0)[-2000:] + log(ran, "corrupt", 1)[-2000:]
    )
    for rank in (0, 1):
        assert "00007" in log(ran, "corrupt", rank)
    other = ended["corrupt"].index(1)
    assert f"rank {1 - other} failed with BrokenSample" in log(ran, "corrupt", other)


def test_killed_rank_ends_the_other(ran, ended):
    status, seconds = json.loads((ran / "ended.json").read_text())["peer"][0]
    assert ended["peer"][1] == -signal.SIGKILL
    assert status == 98
    assert "RuntimeError" in log(ran, "peer", 0)
    assert seconds < 30


def test_rank_that_cannot_notice_is_ended(ran, ended):
    """As with NCCL, where a collective does not fail when another rank goes."""
    assert ended["stuck"] == [1, 98]
    assert "rank 1 failed with ValueError: this input is broken; rank 0 ends, too" in log(
        ran, "stuck", 0
    )


def test_resume_after_the_stop_of_a_command(ran, ended):
    """The last word of the stopped command is true."""
    config = json.loads((ran / "stopped" / "config.json").read_text())
    step = read_metrics(ran / "stopped")[-1]["step"]
    config["schedule"]["steps"] = step + 2
    (ran / "stopped" / "config.json").write_text(json.dumps(config))
    assert main(["resume", str(ran / "stopped")]) == 0
    assert [line["step"] for line in read_metrics(ran / "stopped")] == list(range(1, step + 3))
