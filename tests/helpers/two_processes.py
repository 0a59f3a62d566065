"""A script of the tests run in two processes by the deepspeed launcher, on a free port of this
machine."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def run_two_processes(script: Path, folder: Path) -> Path:
    """Runs `script folder`, which has to leave done.json there: its processes may end by being
    killed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = [
        sys.executable,
        "-m",
        "deepspeed.launcher.runner",
        "--num_accelerators=2",
        f"--master_port={port}",
    ]
    environment = {
        k: v
        for k, v in os.environ.items()
        if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")
    }
    environment.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    command = [*launcher, str(script), str(folder)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert (folder / "done.json").exists(), ran.stdout[-3000:] + ran.stderr[-6000:]
    return folder
