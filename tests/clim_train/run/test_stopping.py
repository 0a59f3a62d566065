"""Requests to stop while a training waits for data that does not come."""

import os
import signal
import threading
import time

import pytest
from clim_train.commands.runs import exit_status
from clim_train.run.checkpoints import CheckpointFolder
from clim_train.run.metrics import read_metrics
from clim_train.run.stopping import StopRequest, TrainingStopped, WaitEnded
from tiny_training import NoiseLoader, tiny_config, tiny_trainer, with_engine, with_run


class StarvedLoader(NoiseLoader):
    """Does `then()` instead of the batch with this number."""

    def __init__(self, number, then):
        super().__init__()
        self.number, self.then, self.taken = number, then, 0

    def __iter__(self):
        for batch in super().__iter__():
            if self.taken == self.number:
                self.then()
            self.taken += 1
            yield batch


def starved(config, number, then, **options):
    trainer = tiny_trainer(config, **options)
    loader = StarvedLoader(number, then)
    trainer.loader = trainer._data.loader = loader
    return trainer


def be_terminated():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


def lose_a_worker():
    raise RuntimeError("DataLoader worker (pid 7) exited unexpectedly with exit code -9")


@pytest.fixture
def patience(monkeypatch):
    """Seconds after which a wait ends."""
    defaults = dict(zip(("same_s", "wait_s"), StopRequest.__init__.__defaults__, strict=True))
    assert defaults["wait_s"] < 30  # schedulers kill after 30 s
    monkeypatch.setattr(StopRequest.__init__, "__defaults__", (2.0, 0.05))


def saved(folder):
    return [path.name for path in CheckpointFolder(folder / "checkpoints").complete()]


def losses(folder):
    return [line["loss"] for line in read_metrics(folder)]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_sigterm_ends_the_wait_with_a_checkpoint(patience, tmp_path, accumulation):
    config = with_run(tiny_config(tmp_path / "run", steps=4), save_every=100)
    config = with_engine(config, accumulation=accumulation)
    trainer = starved(config, 2 * accumulation + accumulation - 1, be_terminated)
    with trainer, pytest.raises(TrainingStopped, match="stopped at step 2, checkpoint saved"):
        trainer.fit()
    assert saved(tmp_path / "run") == ["step-00000002"]

    tiny_trainer(config, resume=True).fit()
    whole = with_run(config, folder=str(tmp_path / "whole"))
    tiny_trainer(whole).fit()
    assert losses(tmp_path / "run")[-1] == losses(tmp_path / "whole")[-1]


def test_sigterm_before_the_first_step_leaves_a_run_that_starts_over(patience, tmp_path, capsys):
    config = tiny_config(tmp_path / "run", steps=1)
    trainer = starved(config, 0, be_terminated)
    with trainer:
        assert exit_status(trainer.fit, program="clim-train", continues="") == 75
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no checkpoint was saved: `clim-train resume" in said
    tiny_trainer(config, resume=True).fit()


def test_a_dead_worker_ends_in_one_line_with_a_checkpoint(tmp_path, capsys):
    config = with_run(tiny_config(tmp_path / "run"), save_every=100)
    trainer = starved(config, 2, lose_a_worker)
    with trainer:
        assert exit_status(trainer.fit, program="clim-train", continues="") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "lower --workers" in said
    assert saved(tmp_path / "run") == ["step-00000002"]


def test_a_checkpoint_that_is_there_is_not_written_again(patience, tmp_path):
    trainer = starved(with_run(tiny_config(tmp_path / "run"), save_every=1), 2, be_terminated)
    steps = []
    save = trainer.save
    trainer.save = lambda: steps.append(trainer.step) or save()
    with trainer, pytest.raises(TrainingStopped):
        trainer.fit()
    assert steps == [1, 2]


def test_a_wait_ends_only_when_the_run_is_asked_to_stop(patience):
    with StopRequest() as request:
        with request.may_end_wait():
            time.sleep(0.1)
        assert StopRequest.ask_active()
        time.sleep(0.1)  # work is not interrupted
        with pytest.raises(WaitEnded), request.may_end_wait():
            time.sleep(60)
        with request.may_end_wait():
            pass
        time.sleep(0.1)
    assert not StopRequest.ask_active()


def test_a_wait_is_ended_from_another_thread(patience):
    with StopRequest() as request:
        threading.Timer(0.05, StopRequest.ask_active).start()
        with pytest.raises(WaitEnded), request.may_end_wait():
            time.sleep(60)


def test_asking_again_is_no_second_signal():
    with StopRequest(same_s=0) as request:
        os.kill(os.getpid(), signal.SIGTERM)
        assert StopRequest.ask_active()
        assert request.asked
