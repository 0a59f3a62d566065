"""What happens to worker processes of a search: Ctrl-C, a kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture
def photos(tmp_path, images):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "0.png").write_bytes(images.encoded(images.pixels(0, 480, 640), "PNG"))
    for number in range(1, 200):
        (folder / f"{number}.png").symlink_to(folder / "0.png")
    return folder


def start(photos, workers):
    """Start a search of minutes and return it when its first part is there."""
    out = photos.parent / "boxes.json"
    options = ["--images", str(photos), "--out", str(out), "--workers", str(workers)]
    program = subprocess.Popen(
        [sys.executable, "-m", "clim_data", "proposals", *options, "--part-images=1"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for _ in range(600):
        if list(photos.parent.glob("boxes.json.parts-*/0*.json")):
            return program
        assert program.poll() is None, program.communicate()
        time.sleep(0.1)
    raise AssertionError("no part appeared")


def last_line(text):
    return text.replace("\r", "\n").strip().splitlines()[-1]


def test_interrupted_proposals_leave_no_worker(photos):
    """Ctrl-C in a terminal reaches the workers, too."""
    pytest.importorskip("cv2.ximgproc")
    program = start(photos, 2)

    os.killpg(program.pid, signal.SIGINT)
    _, err = program.communicate(timeout=60)

    assert program.returncode == 130
    assert last_line(err).endswith("clim-data: interrupted; the same command continues")
    assert "Traceback" not in err
    # The server of the workers ends when it notices that its parent has.
    for _ in range(100):
        if not processes_of(program.pid):
            return
        time.sleep(0.1)
    raise AssertionError([command_of(pid) for pid in processes_of(program.pid)])


def test_a_killed_worker_is_one_line_with_the_fix(photos):
    pytest.importorskip("cv2.ximgproc")
    program = start(photos, 2)
    workers = [pid for pid in processes_of(program.pid) if "forkserver" in command_of(pid)]

    # The last is a worker: the server, which is their parent, came first.
    os.kill(max(workers), signal.SIGKILL)
    _, err = program.communicate(timeout=60)

    assert program.returncode == 1
    assert "a worker process was killed" in last_line(err)
    assert "--workers" in last_line(err)
    assert "Traceback" not in err


def processes_of(group):
    """Process ids of a session, from /proc."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if os.getpgid(int(folder.name)) == group:
                    found.append(int(folder.name))
            except ProcessLookupError:
                continue
    return found


def command_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_text()
