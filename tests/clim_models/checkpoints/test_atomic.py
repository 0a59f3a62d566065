"""Files are there whole or not at all, and no draft stays."""

import errno
import os
import signal
import subprocess
import sys

import pytest
import torch
from clim_models.checkpoints.atomic import write_json, write_whole
from safetensors import SafetensorError
from safetensors.torch import save_file

KILLED = """
import os, signal, sys
from pathlib import Path
from clim_models.checkpoints.atomic import write_whole

with write_whole(Path(sys.argv[1])) as draft:
    draft.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""

FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from clim_models.checkpoints.atomic import write_whole

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with write_whole(Path(sys.argv[1])) as draft:
        save_file({"x": torch.zeros(10_000)}, draft)
except OSError as error:
    print(error.errno)
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


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Error while serializing: I/O error: No space left on device (os error 28)", errno.ENOSPC),
        ("Error while serializing: I/O error: Disk quota exceeded (os error 122)", errno.EDQUOT),
        (
            'Error while serializing: IoError(Os { code: 28, kind: StorageFull, message: "No space '
            'left on device" })',
            errno.ENOSPC,
        ),
        ("Error while serializing: something else", errno.EIO),
    ],
)
def test_an_error_of_safetensors_has_the_number_of_the_system(tmp_path, text, number):
    path = tmp_path / "model.safetensors"
    with pytest.raises(OSError, match="MB are free") as raised, write_whole(path):
        raise SafetensorError(text)
    assert raised.value.errno == number
    assert raised.value.filename == str(path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o007, 0o660)])
def test_the_umask_decides_who_may_read(tmp_path, umask, mode):
    path = tmp_path / "model.safetensors"
    path.touch(0o600)
    before = os.umask(umask)
    try:
        with write_whole(path) as draft:
            save_file({"x": torch.zeros(1)}, draft)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == mode


def test_a_limit_on_the_size_of_files_is_an_error_with_the_path(tmp_path):
    """A real write that fails, in a process of its own."""
    ran = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "w.safetensors")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert ran.stdout == f"{errno.EFBIG}\n", ran.stderr
    assert os.listdir(tmp_path) == []
