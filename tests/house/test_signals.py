"""Ctrl-C, SIGTERM and closed pipes end the real programs in one line, or silently."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

PROGRAMS = ("clim_data", "clim_eval", "clim_train", "flmm")

# Runs a program whose command is `body`, which says "waiting" when it can be signalled.
WAITING = """
import sys, time, types
from clim_data.command_line import run_command, run_program

def command():
{body}

def main(argv):
    return run_command("toy", command, continues="run it again")

sys.modules["toy"] = types.SimpleNamespace(main=main)
sys.exit(run_program("toy", "toy"))
"""

SLEEP = """
print("waiting", flush=True)
time.sleep(60)
"""
LIBRARY = """
try:
    print("waiting", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    raise RuntimeError("DataLoader worker is killed by signal: Interrupt")
"""
TALKATIVE = """
print("waiting", flush=True)
for _ in range(1000):
    print("x" * 1000)
"""
STUBBORN = """
try:
    print("waiting", flush=True)
    time.sleep(60)
finally:
    print("cleaning", flush=True)
    time.sleep(60)
"""


def program_of(body):
    return WAITING.format(body=textwrap.indent(body, "    "))


def start(code_or_module, *words):
    command = ["-c", code_or_module] if "\n" in code_or_module else ["-m", code_or_module]
    return subprocess.Popen(
        [sys.executable, *command, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("number", "status", "line"),
    [
        (signal.SIGINT, 130, "toy: interrupted; run it again\n"),
        (signal.SIGTERM, 143, "toy: terminated; run it again\n"),
        (signal.SIGHUP, 129, "toy: terminated; run it again\n"),
    ],
)
def test_a_signal_ends_a_command_in_one_line(number, status, line):
    program = start(program_of(SLEEP))
    assert program.stdout.readline() == "waiting\n"

    os.killpg(program.pid, number)
    _, err = program.communicate(timeout=30)

    assert (program.returncode, err) == (status, line)


def test_an_interrupt_that_a_library_turns_into_its_own_error_is_one():
    program = start(program_of(LIBRARY))
    assert program.stdout.readline() == "waiting\n"

    os.killpg(program.pid, signal.SIGINT)
    _, err = program.communicate(timeout=30)

    assert (program.returncode, err) == (130, "toy: interrupted; run it again\n")


def test_a_second_interrupt_ends_a_program_that_hangs():
    program = start(program_of(STUBBORN))
    assert program.stdout.readline() == "waiting\n"
    os.killpg(program.pid, signal.SIGINT)
    assert program.stdout.readline() == "cleaning\n"

    os.killpg(program.pid, signal.SIGINT)
    _, err = program.communicate(timeout=30)

    assert (program.returncode, err) == (130, "")


def test_signals_that_the_parent_ignores_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        program = start(program_of(SLEEP.replace("60", "0.2")))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert program.stdout.readline() == "waiting\n"

    os.killpg(program.pid, signal.SIGHUP)

    assert program.communicate(timeout=30)[1] == ""
    assert program.returncode == 0


# Modules with slow imports: the first that a program imports, and that of a command.
IMPORTED = [
    ("clim_data", "main", "nouns"),
    ("clim_data", "nouns", "nouns"),
    ("clim_eval", "main", "show"),
    ("clim_eval", "show", "show"),
    ("clim_train", "start", "list"),
    ("clim_train", "main", "show"),
    ("flmm", "main", "chat"),
    ("flmm", "chat", "chat"),
]


@pytest.mark.parametrize(("program", "module", "command"), IMPORTED)
def test_interrupted_imports_end_in_one_line(program, module, command):
    """The handlers are there before anything slow is imported."""
    name = program.replace("_", "-")
    code = (
        "import sys, time, types\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == '{program}.commands.{module}':\n"
        "            print('importing', flush=True)\n"
        "            time.sleep(60)\n"
        "sys.meta_path.insert(0, Slow())\n"
        f"from {program}.__main__ import main\n"
        f"sys.argv = ['{name}', '{command}']\n"
        "sys.exit(main())\n"
    )
    running = start(code)
    assert running.stdout.readline() == "importing\n"

    os.killpg(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=30)

    assert (running.returncode, err) == (130, f"{name}: interrupted\n")


def test_a_reader_that_leaves_in_the_middle_ends_a_command_silently():
    program = start(program_of(TALKATIVE))
    assert program.stdout.readline() == "waiting\n"
    program.stdout.close()
    assert program.wait(timeout=30) == 141
    assert program.stderr.read() == ""


@pytest.mark.parametrize("words", ["clim_data --help", "clim_data pack lvis --help", "flmm --help"])
def test_a_reader_that_leaves_ends_a_program_silently(words):
    module, *arguments = words.split()
    read, write = os.pipe()
    os.close(read)
    try:
        program = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(write)
    # argparse itself drops the error where Python's output has no buffer.
    assert program.returncode in (0, 141)
    assert program.stderr == ""


def test_a_full_disk_below_stdout_is_one_line():
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        program = subprocess.run(
            [sys.executable, "-m", "clim_data", "doctor", "."],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert program.returncode == 1
    assert program.stderr.count("\n") == 1
    assert "make room" in program.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_change_no_status(closed):
    command = f"{sys.executable} -m clim_data doctor . {closed}"
    program = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert program.returncode == 0
    assert program.stderr == ""
