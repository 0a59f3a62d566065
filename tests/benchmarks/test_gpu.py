"""The GPU run: rehearsed whole on a CPU, and what it does with parts that fail, hang or die."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PARTS = {
    "fails": "def run(part):\n    part.check('one', True)\n    raise ValueError('broken part')\n",
    "hangs": (
        "import subprocess, time\n"
        "def run(part):\n"
        "    child = subprocess.Popen(['sleep', '600'])\n"
        "    part.figure('child', child.pid, 'pid')\n"
        "    time.sleep(600)\n"
    ),
    "dies": "import os\ndef run(part):\n    part.check('one', True)\n    os._exit(3)\n",
    "guards": (
        "def run(part):\n"
        "    with part.guarded('a line'):\n"
        "        raise ValueError('broken line')\n"
        "    part.within('another', 0.5, 1.0)\n"
    ),
}


def test_every_part_passes_on_a_cpu(tmp_path):
    """The whole script as it is started, at the smallest sizes."""
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--out", str(tmp_path), "--tiny"]
    # Trainings of other tests leave their process group's address here.
    group = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    environment = {name: value for name, value in os.environ.items() if name not in group}
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, env=environment)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

    (result,) = tmp_path.glob("gpu-cpu-*.json")
    parts = json.loads(result.read_text())["parts"]
    names = [part["part"] for part in parts]
    assert all(part["done"] and part["checks"] + part["figures"] for part in parts)
    assert {path.stem for path in tmp_path.glob("*.json")} == {*names, result.stem}
    last = done.stdout.strip().splitlines()[-3]
    assert last == f"== {len(names)} of {len(names)} parts complete and without a failed check"


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """The script as a module, with the parts of this file in place of its own."""
    for name, code in PARTS.items():
        (tmp_path / f"{name}_part.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("gpu")
    table = importlib.import_module("gpu_parts")
    # The part that hangs is waited for; the others have time enough on a machine that is busy.
    limits = {name: 2 if name == "hangs" else 20 for name in PARTS}
    entries = {name: table.Entry(f"{name}_part", name, limit) for name, limit in limits.items()}
    monkeypatch.setattr(module, "PARTS", entries)
    monkeypatch.setattr(module, "PRELOAD", ("torch",))
    return module


def run(gpu, tmp_path, capsys, *arguments):
    """Run the script; returns its exit status, its parts by name, and what it printed."""
    status = gpu.main(["--out", str(tmp_path / "out"), "--tiny", *arguments])
    (result,) = (tmp_path / "out").glob("gpu-cpu-*.json")
    parts = {part["part"]: part for part in json.loads(result.read_text())["parts"]}
    return status, parts, capsys.readouterr().out


def test_a_part_that_fails_hangs_or_dies_does_not_stop_the_next(gpu, tmp_path, capsys):
    status, parts, printed = run(gpu, tmp_path, capsys)
    assert status == 1
    assert list(parts) == list(PARTS)
    assert "ValueError: broken part" in parts["fails"]["failure"]
    assert "its limit of 12 s" in parts["hangs"]["failure"]
    assert "exit status 3" in parts["dies"]["failure"]
    # What was reported before the end is there.
    assert [check["name"] for check in parts["dies"]["checks"]] == ["one"]

    guarded = parts["guards"]
    assert guarded["done"]
    assert guarded["failure"] is None
    assert [check["passed"] for check in guarded["checks"]] == [False, True]
    assert "ValueError: broken line" in guarded["checks"][0]["detail"]
    assert "FAIL  a line  [ValueError: broken line]" in printed
    assert printed.splitlines()[-3] == "== 0 of 4 parts complete and without a failed check"


def test_programs_of_a_part_end_with_it(gpu, tmp_path, capsys):
    _, parts, _ = run(gpu, tmp_path, capsys, "--only", "hangs")
    assert has_ended(parts["hangs"])


def test_parts_and_their_programs_end_with_the_script(gpu, tmp_path):
    path = tmp_path / "out" / "hangs.json"
    gpu.PARTS["hangs"] = replace(gpu.PARTS["hangs"], seconds=60)

    def stop():
        while not path.exists() or '"child"' not in path.read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    Thread(target=stop, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        gpu.main(["--out", str(tmp_path / "out"), "--tiny", "--only", "hangs"])
    assert has_ended(json.loads(path.read_text()))


def has_ended(part: dict) -> bool:
    """Whether the program that the part `hangs` started has ended."""
    (figure,) = part["figures"]
    state = Path(f"/proc/{int(figure['value'])}/stat")
    # A zombie that nobody has waited for yet has ended, too.
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_parts_without_time_are_named(gpu, tmp_path, capsys):
    status, parts, _ = run(gpu, tmp_path, capsys, "--seconds", "0")
    assert status == 1
    assert all(part["failure"].startswith("not started") for part in parts.values())


def test_unknown_parts_are_refused(gpu, tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(tmp_path), "--tiny", "--only", "nothing"])
    assert "choose from" in capsys.readouterr().err


def test_the_page_shows_the_newest_run_of_each_card(gpu, tmp_path, capsys):
    table = importlib.import_module("table")
    assert table.gpu_table(tmp_path) == "No GPU has been measured yet."
    _, _, _ = run(gpu, tmp_path, capsys, "--only", "guards")
    (path,) = (tmp_path / "out").glob("gpu-*.json")
    older = {**json.loads(path.read_text()), "date": "2001-01-01", "parts": []}
    (tmp_path / "out" / "gpu-cpu-2001-01-01.json").write_text(json.dumps(older))
    text = table.gpu_table(tmp_path / "out")
    assert "| guards | 1 | a line |  | yes |" in text
    assert "2001" not in text


def test_a_part_that_runs_again_replaces_its_lines(gpu, tmp_path, capsys):
    run(gpu, tmp_path, capsys, "--only", "guards", "dies")
    (path,) = (tmp_path / "out").glob("gpu-*.json")
    record = json.loads(path.read_text())
    record["parts"][1]["checks"] = []  # of "guards"
    path.write_text(json.dumps(record))

    _, parts, _ = run(gpu, tmp_path, capsys, "--only", "guards")
    assert list(parts) == ["dies", "guards"]
    assert len(parts["guards"]["checks"]) == 2


def test_a_line_without_time_is_not_a_failure(gpu):
    table = importlib.import_module("table")
    assert table.is_left_out({"name": "sums: left out, no time", "detail": ""})
    assert table.is_left_out({"name": "sums", "detail": "left out: no time"})
    assert not table.is_left_out({"name": "sums", "detail": "3 of 4"})
