"""Scripts of the tests that run in processes of their own, which are forks of one prepared process.

The deepspeed command itself is tested once, in `tests/clim_train/commands/test_main.py`.
"""

import atexit
import json
import os
import random
import socket
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

WORKERS = Path(__file__).parents[1] / "workers"
LAUNCH_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def run_two_processes(script: Path, folder: Path) -> Path:
    """Run `script folder` in two ranks and return the folder.

    The script has to leave done.json there. How its processes end is its own affair: some are
    killed.
    """
    run_ranks(script, [str(folder)], folder / "rank", ranks=2)
    if not (folder / "done.json").exists():
        logs = [(folder / f"rank.{rank}.log").read_text()[-4000:] for rank in range(2)]
        raise AssertionError("\n".join(logs))
    return folder


def run_ranks(script: Path, arguments: list[str], log: Path, *, ranks: int = 1) -> list[int]:
    """Run `script arguments` in as many processes as there are ranks, and wait for all of them.

    What rank R prints goes to LOG.R.log. Return the exit status of each rank, negative where a
    signal ended it.
    """
    environment = {k: v for k, v in os.environ.items() if k not in LAUNCH_VARIABLES}
    environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    environments = []
    for rank in range(ranks):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        environments.append(environment | place)

    job = {
        "script": str(script),
        "arguments": arguments,
        "environments": environments,
        "log": str(log),
    }
    zygote = _zygote()
    zygote.stdin.write(json.dumps(job) + "\n")
    zygote.stdin.flush()
    return json.loads(zygote.stdout.readline())


def free_port() -> int:
    """Find a port of this machine that nobody listens at.

    The ports are below those that Linux gives to connections (32768 and above), and drawn at
    random: other tests that run at the same time hardly find the same one before it is used.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@cache
def _zygote() -> subprocess.Popen[str]:
    """Start the process that all others are forks of; it ends when this process does."""
    environment = {k: v for k, v in os.environ.items() if k not in LAUNCH_VARIABLES}
    zygote = subprocess.Popen(
        [sys.executable, str(WORKERS / "zygote.py")],
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(zygote.communicate)

    # Libraries may print while they are imported.
    for line in zygote.stdout:
        if line == "ready\n":
            return zygote
    raise AssertionError("the process that others are forked from did not start, see above")
