"""Trainings in processes of their own that are killed, stopped and starved; run by
`test_fault_processes.py`.

python fault_processes.py FOLDER SHARDS

Everything is imported once; each process is a fork. Writes FOLDER/NAME.RANK.log and
FOLDER/ended.json: name -> [[exit status (negative: signal), seconds] of each rank].
"""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

# The tests' folder, for conftest, and the helpers of all tests.
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
os.environ["DS_ACCELERATOR"] = "cpu"

import torch
import torch._inductor.compile_fx  # these two the first step of each process would import
import torch.distributed as dist
import torch.utils.cpp_extension
from clim_train import CheckpointWriteError, ClimTask, NotFiniteError, build, trainer  # noqa: F401
from clim_train.commands import main as cli
from clim_train.run import peers, stopping
from tiny_training import (
    register_tiny_towers,
    small_command,
    tiny_config,
    tiny_trainer,
    tokenizer,
    with_run,
)
from two_processes import free_port

torch.set_num_threads(1)
LIMIT_S = 60


def fork(work, log: Path, ranks: int = 1) -> list[int]:
    """Starts `work(rank)` in as many processes; their ids. Each leads a process group of its
    own."""
    port = free_port()
    pids = []
    for rank in range(ranks):
        pid = os.fork()
        if pid == 0:
            os.setpgrp()
            file = os.open(f"{log}.{rank}.log", os.O_WRONLY | os.O_CREAT)
            os.dup2(file, 1)
            os.dup2(file, 2)
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            os.environ.update(address, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks))
            status = 99
            try:
                status = work(rank) or 0
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
                status = 98
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        pids.append(pid)
    return pids


def wait(pids: list[int]) -> list[tuple[int, float]]:
    """Exit status and seconds of each; what is still there after LIMIT_S is killed (-9)."""
    began, ended = time.monotonic(), {}
    while len(ended) < len(pids):
        for pid in pids:
            if pid in ended:
                continue
            if time.monotonic() - began > LIMIT_S:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                ended[pid] = (-9, LIMIT_S)
            elif (found := os.waitpid(pid, os.WNOHANG))[0]:
                ended[pid] = (os.waitstatus_to_exitcode(found[1]), time.monotonic() - began)
        time.sleep(0.02)
    return [ended[pid] for pid in pids]


class Breaks(ClimTask):
    """Does `then` in the given call of the loss, counted from 1."""

    call, then, calls = 0, None, 0

    def loss(self, batch):
        self.calls += 1
        scalars = super().loss(batch)
        return self.then(scalars) or scalars if self.calls == self.call else scalars


def breaking(config, call, then, **options):
    """A trainer whose task does `then(scalars)` in its `call`-th loss."""
    made = tiny_trainer(config, **options)
    made.task.__class__, made.task.call, made.task.then = Breaks, call, then
    return made


def be_signalled(_):
    os.kill(os.getpid(), signal.SIGTERM)


def nothing(_):
    pass


def not_a_number(scalars):
    return {**scalars, "loss": scalars["loss"] * float("nan")}


# -- one process ---------------------------------------------------------------------------------


def killed_while_writing(folder: Path, rank: int) -> None:
    """Dies by SIGKILL with half of a file of the checkpoint of step 4 written."""
    save = torch.save

    def save_half(content, path, **options):
        save(content, path, **options)
        if "step-00000004" in str(path):
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = save_half
    tiny_trainer(tiny_config(folder / "killed")).fit()


def endless_command(folder: Path, shards: str, rank: int) -> int:
    """The command on real shards with a worker; the whole process group is signalled from
    outside."""
    options = ["--data.workers=1", "--data.batch-size=8", "--schedule.steps=100000"]
    return cli.main(small_command("clim_coco_vitb16", shards, folder / "stopped", *options))


def signalled_twice(folder: Path, rank: int) -> None:
    """In step 3 one signal, and another later than signals that belong together."""
    stopping.StopRequest.__init__.__defaults__ = (0.2, 10.0)

    def twice(_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)

    breaking(tiny_config(folder / "twice"), 3, twice).fit()


# -- two processes -------------------------------------------------------------------------------


def agreed_ends(folder: Path, rank: int) -> None:
    """Ends that both processes reach together, one after another: the process groups outlive
    them."""
    options = {"rank": rank, "world_size": 2}
    whole = tiny_config(folder / "whole2", world_size=2)
    tiny_trainer(whole, **options).fit()
    reports = {}

    config = with_run(whole, folder=str(folder / "stopped2"), save_every=100)
    try:
        with breaking(config, 3, be_signalled if rank == 1 else nothing, **options) as made:
            made.fit()
    except stopping.TrainingStopped as stopped:
        reports["stopped2"] = str(stopped)
    tiny_trainer(with_run(config, save_every=2), resume=True, **options).fit()

    config = with_run(whole, folder=str(folder / "full2"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(_):
        if rank == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))

    try:
        with breaking(config, 4, fill, **options) as made:
            made.fit()
    except CheckpointWriteError as error:
        reports["full2"] = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    reports["left in full2"] = sorted(
        path.name for path in (folder / "full2" / "checkpoints").iterdir()
    )
    dist.barrier()
    tiny_trainer(config, resume=True, **options).fit()

    config = with_run(whole, folder=str(folder / "nan2"), log_every=4, save_every=4)
    try:
        with breaking(config, 3, not_a_number if rank == 1 else nothing, **options) as made:
            made.fit()
    except NotFiniteError as error:
        reports["nan2"] = str(error)
    (folder / f"agreed.{rank}.json").write_text(json.dumps(reports))


def corrupt_input(folder: Path, shards: str, rank: int) -> int:
    """The command on shards of which one picture cannot be read; only one rank meets it."""
    options = ["--data.on-error=raise", "--data.batch-size=20", "--schedule.steps=2"]
    return cli.main(small_command("clim_coco_vitb16", shards, folder / "corrupt2", *options))


def killed_peer(folder: Path, rank: int) -> None:
    """Rank 1 dies by SIGKILL in step 3, and rank 0 waits a little to hear of others."""
    peers.POLL_S, peers.SEEN_S, peers.GRACE_S = 0.1, 1.0, 2.0

    die = (lambda _: os.kill(os.getpid(), signal.SIGKILL)) if rank == 1 else nothing
    breaking(tiny_config(folder / "peer2", world_size=2), 3, die, rank=rank, world_size=2).fit()


def failed_peer_of_a_stuck_rank(folder: Path, rank: int) -> None:
    """Rank 1 raises in step 3, while rank 0 is somewhere from where it would not return for a long
    time."""
    peers.POLL_S, peers.GRACE_S = 0.1, 0.5

    def fail(_):
        if rank == 1:
            raise ValueError("this input is broken")
        time.sleep(LIMIT_S)

    breaking(tiny_config(folder / "stuck2", world_size=2), 3, fail, rank=rank, world_size=2).fit()


def main() -> None:
    folder, shards = Path(sys.argv[1]), sys.argv[2]
    register_tiny_towers()
    tokenizer()
    ended = {}

    def run(name, work, ranks=1, meanwhile=None):
        pids = fork(work, folder / name, ranks)
        if meanwhile is not None:
            meanwhile(pids[0])
        ended[name] = wait(pids)

    def signal_group_in_training(pid):
        lines = folder / "stopped" / "metrics.jsonl"
        began = time.monotonic()
        while (
            not lines.exists() or lines.read_text().count("\n") < 3
        ) and time.monotonic() - began < LIMIT_S:
            time.sleep(0.02)
        os.killpg(pid, signal.SIGTERM)

    run("killed", lambda rank: killed_while_writing(folder, rank))
    run(
        "stopped",
        lambda rank: endless_command(folder, shards, rank),
        meanwhile=signal_group_in_training,
    )
    run("twice", lambda rank: signalled_twice(folder, rank))
    run("agreed", lambda rank: agreed_ends(folder, rank), ranks=2)
    run("corrupt", lambda rank: corrupt_input(folder, str(folder / "shards"), rank), ranks=2)
    run("peer", lambda rank: killed_peer(folder, rank), ranks=2)
    run("stuck", lambda rank: failed_peer_of_a_stuck_rank(folder, rank), ranks=2)
    (folder / "ended.json").write_text(json.dumps(ended))


if __name__ == "__main__":
    main()
