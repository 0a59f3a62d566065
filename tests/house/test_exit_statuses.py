"""The four commands end alike: one table of exit statuses, one line on stderr with the fix."""

import errno
import json
import runpy
import sys
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module

import pytest
import torch
from clim_data.command_line import FAILED, INTERRUPTED, MISTAKE, run_command
from clim_train import TrainingStopped
from clim_train.run import EXIT_STOPPED

# Program -> words of a quick command, and the function that fails in it.
PROGRAMS = {
    "clim_data": (["doctor", "."], "clim_data.doctor.diagnose"),
    "clim_eval": (["report", "run"], "clim_eval.commands.report.read_report"),
    "clim_train": (["list"], "clim_train.commands.main.list_recipes"),
    "flmm": (["demo-model", "new"], "flmm.demo.model_files.write_demo_model"),
}

# Event -> error, status, and the fix that the line ends with or holds.
EVENTS = {
    "full disk": (OSError(errno.ENOSPC, "No space left on device"), FAILED, "then"),
    "missing extra": (
        ImportError("this needs spacy: pip install 'clim-data[nouns]'"),
        MISTAKE,
        "pip install",
    ),
    "Ctrl-C": (KeyboardInterrupt(), INTERRUPTED, "interrupted; "),
    "no GPU": (
        RuntimeError("Found no NVIDIA driver on your system.\nPlease check ..."),
        FAILED,
        "leave --device out",
    ),
    "no network": (
        OSError("We couldn't connect to 'https://huggingface.co'\nCheck ..."),
        FAILED,
        "check the network",
    ),
    "no memory": (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        FAILED,
        "lower the batch size",
    ),
    "used folder": (ValueError("out holds a run: choose a new folder"), MISTAKE, "new folder"),
    "no right to write": (PermissionError(errno.EACCES, "Permission denied"), MISTAKE, "name"),
}


def fail_with(error):
    def fail(*arguments, **options):
        raise error

    return fail


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("package", PROGRAMS)
def test_an_event_ends_every_program_alike(package, event, tmp_path, monkeypatch, capsys):
    words, target = PROGRAMS[package]
    error, status, fix = EVENTS[event]
    main = import_module(f"{package}.commands.main").main
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(target, fail_with(error))

    assert main(words) == status

    said = capsys.readouterr().err
    assert said.startswith(package.replace("_", "-"))
    assert said.count("\n") == 1
    assert said.endswith("\n")
    assert fix in said


@pytest.mark.parametrize("package", PROGRAMS)
def test_what_nobody_foresaw_keeps_its_traceback(package, tmp_path, monkeypatch):
    words, target = PROGRAMS[package]
    main = import_module(f"{package}.commands.main").main
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(target, fail_with(RuntimeError("shapes (3, 4) and (5, 6)")))

    with pytest.raises(RuntimeError, match="shapes"):
        main(words)


@pytest.mark.parametrize("package", ["clim_train", "flmm"])
def test_a_stopped_training_can_be_resumed(package, tmp_path, monkeypatch, capsys):
    words, target = PROGRAMS[package]
    main = import_module(f"{package}.commands.main").main
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(target, fail_with(TrainingStopped(7, "run")))

    assert main(words) == EXIT_STOPPED == 75
    assert "resume run` continues" in capsys.readouterr().err


# -- the events as users meet them -------------------------------------------------------------


# A test may have imported the module already, which runpy warns about.
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize(
    ("module", "runs"),
    [("clim_train.quickstart", "runs"), ("flmm.experiments.quickstart", "run")],
)
def test_an_experiment_on_a_used_folder_is_refused(module, runs, tmp_path, monkeypatch, capsys):
    (tmp_path / runs).mkdir()
    monkeypatch.setattr(sys, "argv", [module, "--out", str(tmp_path)])

    with pytest.raises(SystemExit) as end:
        runpy.run_module(module, run_name="__main__")

    assert end.value.code == MISTAKE
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "choose another folder with --out" in said


def test_a_used_folder_is_refused_by_the_demo_model(tmp_path, capsys):
    (tmp_path / "mine.txt").touch()
    assert import_module("flmm.commands.main").main(["demo-model", str(tmp_path)]) == MISTAKE
    assert "choose a new folder" in capsys.readouterr().err


def run(error):
    return run_command("toy", fail_with(error), continues="`toy again` continues")


def test_interrupted_and_full_disk_say_what_continues(capsys):
    assert run(KeyboardInterrupt()) == INTERRUPTED
    assert run(OSError(errno.EDQUOT, "Disk quota exceeded")) == FAILED
    assert capsys.readouterr().err == (
        "toy: interrupted; `toy again` continues\n"
        f"toy: [Errno {errno.EDQUOT}] Disk quota exceeded: make room, then `toy again` continues\n"
    )


def test_our_own_message_about_memory_stays_a_mistake(capsys):
    assert run(ValueError("--part-images 9 may run out of memory: pass 8")) == MISTAKE
    assert capsys.readouterr().err == "toy: --part-images 9 may run out of memory: pass 8\n"


def test_another_broken_pipe_is_no_fault_of_the_network(capsys):
    assert run(BrokenPipeError(errno.EPIPE, "Broken pipe")) == FAILED
    assert "a process at the other end has ended" in capsys.readouterr().err


def test_real_errors_of_torch_and_json_find_their_row(capsys):
    if not torch.cuda.is_available():
        assert run_command("toy", lambda: torch.zeros(1, device="cuda")[0].int()) == FAILED
        assert "toy: no CUDA device here: leave --device out" in capsys.readouterr().err
    assert run_command("toy", lambda: torch.zeros(1 << 55).sum().int()) == FAILED
    assert "lower the batch size" in capsys.readouterr().err
    assert run_command("toy", lambda: json.loads("{")) == MISTAKE


def test_a_command_may_choose_its_status():
    assert run_command("toy", lambda: 1) == 1
    assert run_command("toy", print) == 0
    assert run_command("toy", lambda first, second: first + second, 1, 2) == 3


WRAPPED = """Caught OSError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "worker.py", line 349, in _worker_loop
    data = fetcher.fetch(index)
OSError: [Errno 5] Input/output error: 'a.tar'
"""

# What happens -> the error as libraries raise it, status, and the fix.
LIBRARIES = {
    "worker out of memory": (
        RuntimeError("DataLoader worker (pid(s) 12) exited unexpectedly"),
        FAILED,
        "lower --workers",
    ),
    "pool out of memory": (BrokenProcessPool("A process terminated"), FAILED, "lower --workers"),
    "small /dev/shm": (
        RuntimeError("unable to open shared memory object </torch_1> in read-write mode"),
        FAILED,
        "--workers 0",
    ),
    "full disk below safetensors": (
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        FAILED,
        "make room",
    ),
    "no network to the hub": (
        OSError(errno.ENETUNREACH, "Network is unreachable"),
        FAILED,
        "check the network",
    ),
    "no memory for a library": (
        ImportError("libtorch_cpu.so: failed to map segment", path="libtorch_cpu.so"),
        FAILED,
        "lower the batch size",
    ),
    "too many open files": (OSError(errno.EMFILE, "Too many open files"), FAILED, "ulimit -n"),
    "a path that is gone": (
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/proc/x"),
        MISTAKE,
        "check that path",
    ),
    "a device of another name": (
        RuntimeError("Invalid device string: 'gpu'"),
        FAILED,
        "pass --device cpu",
    ),
    "an error in a loading process": (OSError(WRAPPED), MISTAKE, "Input/output error: 'a.tar'"),
}


@pytest.mark.parametrize("event", LIBRARIES)
def test_errors_of_libraries_are_one_line_with_the_fix(event, capsys):
    error, status, fix = LIBRARIES[event]
    assert run(error) == status
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert fix in said
    assert "Traceback" not in said
