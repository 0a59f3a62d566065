"""Files are there whole or not at all, and no draft stays."""

import os
import signal
import subprocess
import sys

import pytest
from clim_models.checkpoints.atomic import write_json, write_whole

KILLED = """
import os, signal, sys
from pathlib import Path
from clim_models.checkpoints.atomic import write_whole

with write_whole(Path(sys.argv[1])) as draft:
    draft.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_error_keeps_the_old_file_and_leaves_no_draft(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_text("old")

    def write_half() -> None:
        with write_whole(path) as draft:
            draft.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["weights.bin"]


def test_a_killed_process_keeps_the_old_file(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_text("old")
    ran = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert ran.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_two_writers_never_share_a_draft(tmp_path):
    path = tmp_path / "weights.bin"
    with write_whole(path) as first, write_whole(path, sync=False) as second:
        first.write_text("first")
        second.write_text("second")
        assert first != second
    assert path.read_text() == "first"


def test_json_is_indented_and_ends_with_a_line(tmp_path):
    write_json(tmp_path / "config.json", {"name": "é"})
    assert (tmp_path / "config.json").read_text(encoding="utf-8") == '{\n  "name": "\\u00e9"\n}\n'
