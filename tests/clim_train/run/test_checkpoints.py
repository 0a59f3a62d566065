"""A checkpoint is whole or not there, wherever the process dies."""

import os
import shutil

import pytest
from clim_train.run import checkpoints
from clim_train.run.checkpoints import CheckpointFolder


def write(folder, step, text="weights"):
    partial = folder.folder / folder.partial_name(step)
    (partial / "inner").mkdir(parents=True)
    (partial / "inner" / "file").write_text(f"{text} {step}")
    return partial


def content(path):
    return (path / "inner" / "file").read_text()


@pytest.fixture
def folder(tmp_path):
    made = CheckpointFolder(tmp_path / "checkpoints", keep=2)
    made.prepare()
    return made


def test_commit_names_the_newest_and_keeps_n(folder):
    assert folder.complete() == []
    for step in (2, 4, 6):
        write(folder, step)
        final = folder.commit(step)
        assert folder.complete()[-1] == final
        assert (folder.folder / "latest").read_text() == final.name + "\n"
    assert [p.name for p in folder.complete()] == ["step-00000004", "step-00000006"]


def test_steps_sort_as_numbers(folder):
    for step in (999_999_999, 99_999_999):
        write(folder, step)
        folder.commit(step)
    assert content(folder.complete()[-1]) == "weights 999999999"


def test_unfinished_checkpoint_is_never_the_latest_and_is_cleared(folder):
    write(folder, 2)
    folder.commit(2)
    partial = write(folder, 4)
    assert content(folder.complete()[-1]) == "weights 2"
    folder.prepare()
    assert not partial.exists()
    assert content(folder.complete()[-1]) == "weights 2"


class Killed(BaseException):
    pass


CALLS = [("rename", 1), ("rename", 2), ("replace", 1), ("rmtree", 1), ("fsync", 1), ("fsync", 3)]


@pytest.mark.parametrize(("call", "time"), CALLS, ids=lambda v: str(v))
@pytest.mark.parametrize("when", ["before", "after"])
def test_death_at_any_call_of_commit_leaves_a_whole_latest(folder, monkeypatch, call, time, when):
    for step in (2, 4):
        write(folder, step)
        folder.commit(step)
    write(folder, 6)
    owner = shutil if call == "rmtree" else os
    real, count = getattr(owner, call), 0

    def dying(*arguments, **options):
        nonlocal count
        count += 1
        if count == time and when == "before":
            raise Killed
        result = real(*arguments, **options)
        if count == time:
            raise Killed
        return result

    monkeypatch.setattr(getattr(checkpoints, owner.__name__), call, dying)
    with pytest.raises(Killed):
        folder.commit(6)
    monkeypatch.undo()

    restarted = CheckpointFolder(folder.folder, keep=2)
    restarted.prepare()
    latest = restarted.complete()[-1]
    assert content(latest) == f"weights {int(latest.name.removeprefix('step-'))}"
    assert latest.name in ("step-00000004", "step-00000006")
    write(restarted, 8)
    restarted.commit(8)
    assert content(restarted.complete()[-1]) == "weights 8"
    assert len(restarted.complete()) == 2


def test_writing_a_step_again_replaces_it(folder):
    write(folder, 2, "old")
    folder.commit(2)
    write(folder, 2, "new")
    folder.commit(2)
    assert content(folder.complete()[-1]) == "new 2"


def test_a_folder_that_is_not_there_has_no_checkpoints(tmp_path):
    assert CheckpointFolder(tmp_path / "nothing").complete() == []
