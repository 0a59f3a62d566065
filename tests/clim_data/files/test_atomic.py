"""A file is whole or not there, whatever happens to the process that writes it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from clim_data.files.atomic import write_bytes, write_json, write_text, write_whole


def test_file_and_folder_are_made_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "list.txt"
    write_text(path, "ä\n")
    assert path.read_bytes() == "ä\n".encode()
    assert os.listdir(path.parent) == ["list.txt"]


def test_a_failure_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail_halfway():
        with write_whole(path) as draft:
            draft.write_bytes(b"half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail_halfway()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_two_writers_of_one_file_have_two_drafts(tmp_path):
    path = tmp_path / "file"
    with write_whole(path) as one, write_whole(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["file"]


def test_patterns_for_finished_files_find_no_draft(tmp_path):
    with write_whole(tmp_path / "shard-0.tar") as draft:
        draft.write_bytes(b"")
        assert not list(tmp_path.glob("*.tar"))
        assert not list(tmp_path.glob("shard*"))


def test_json_is_compact_for_machines_and_indented_for_people(tmp_path):
    write_json(tmp_path / "a", {"ä": [1, 2]})
    write_json(tmp_path / "b", {"ä": [1, 2]}, indent=2)
    assert (tmp_path / "a").read_text("utf-8") == '{"ä":[1,2]}'
    assert (tmp_path / "b").read_text("utf-8") == '{\n  "ä": [\n    1,\n    2\n  ]\n}\n'


def test_the_mode_is_that_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_killed_writer_leaves_the_old_file_whole(tmp_path):
    """A process rewrites a file again and again until it is killed; no reader sees a part of it."""
    path = tmp_path / "file.json"
    code = (
        "import sys\n"
        "from clim_data.files.atomic import write_json\n"
        "number = 0\n"
        "while True:\n"
        "    write_json(sys.argv[1], [number] * 20000, sync=False)\n"
        "    number += 1\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)])
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    for _ in range(20):
        assert len(set(json.loads(path.read_text()))) == 1
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert len(json.loads(path.read_text())) == 20000
