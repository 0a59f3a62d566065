"""A file is whole or not there, whatever happens to the process that writes it."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from clim_data.files.atomic import (
    remove_stale_drafts,
    write_bytes,
    write_json,
    write_text,
    write_whole,
)


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


def test_the_mode_is_that_of_the_umask_also_where_a_library_replaces_the_draft(tmp_path):
    before = os.umask(0o027)
    try:
        with write_whole(tmp_path / "weights") as draft:
            other = tmp_path / "other"
            other.touch(0o600)
            os.replace(other, draft)
    finally:
        os.umask(before)
    assert (tmp_path / "weights").stat().st_mode & 0o777 == 0o640


def test_a_link_in_the_place_of_the_file_is_replaced_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (tmp_path / "file").symlink_to(outside)
    write_text(tmp_path / "file", "new")
    assert outside.read_text() == "precious"
    assert not (tmp_path / "file").is_symlink()


def test_a_planted_draft_is_never_written(tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    monkeypatch.setattr("secrets.token_hex", lambda count: "0" * 8)
    with write_whole(tmp_path / "file") as draft:
        name = draft.name
    (tmp_path / name).symlink_to(outside)
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "file", "new")
    assert outside.read_text() == "precious"


def test_a_long_name_has_a_draft(tmp_path):
    write_text(tmp_path / ("ä" * 127), "x")
    assert len(os.listdir(tmp_path)) == 1


class LibraryError(Exception):
    pass


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "full"),
        OSError(errno.EDQUOT, "full"),
        OSError("3840 requested and 2016 written"),
        LibraryError("I/O error: No space left on device (os error 28)"),
        LibraryError('IoError(Os { code: 122, kind: FilesystemQuotaExceeded, message: "Quota" })'),
    ],
)
def test_a_full_disk_is_one_sentence_with_the_path(tmp_path, error):
    def fill():
        with write_whole(tmp_path / "file"):
            raise error

    with pytest.raises(OSError, match=r"MB are free\).*file'") as caught:
        fill()
    assert caught.value.errno in (errno.ENOSPC, errno.EDQUOT)
    assert not os.listdir(tmp_path)


def test_drafts_of_dead_processes_are_removed(tmp_path):
    pid = os.fork()
    if pid == 0:
        writer = write_whole(tmp_path / "dead")
        writer.__enter__()
        os._exit(0)
    os.waitpid(pid, 0)
    with write_whole(tmp_path / "alive") as draft:
        assert len(os.listdir(tmp_path)) == 2
        remove_stale_drafts(tmp_path)
        assert os.listdir(tmp_path) == [draft.name]


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
