"""Runs started, stopped and resumed as users do it: as commands, in processes of their own.

A rehearsal starts one process, on a CPU with a small tower, and goes on with its run in this
process.
"""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clim_train import read_metrics
from clim_train.run import EXIT_STOPPED

from gpu_parts.record import Part
from gpu_parts.training_cases import Photos, free_port, write_photos

PYTHON = (sys.executable, "-m", "clim_train")

# What a launcher says to its processes, which a new start must not inherit.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

SEEN_STEPS = 3  # lines of metrics after which a run is stopped
END_SECONDS = 60.0


def run(part: Part) -> None:
    # Programs that are started here lead groups of their own: they are ended in `finally`, also
    # after SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    photos = write_photos(
        part.folder / "photos", 16 if part.tiny else 64, (48, 64) if part.tiny else (480, 640)
    )
    if part.tiny:
        rehearse(part, photos)
        return
    began = time.monotonic()
    plain, stopped = part.folder / "plain", part.folder / "stopped"
    steps = 60

    with part.guarded("clim by `python -m clim_train`"):
        check_whole_run(part, [*clim_options(photos, plain), "--schedule.steps=6"], plain, 6)

    with part.guarded("clipself by `deepspeed --num_gpus 1 --module clim_train`, SIGTERM"):
        check_launcher_stop(
            part, [*clipself_options(photos, stopped), f"--schedule.steps={steps}"], stopped
        )

    with part.guarded("resume by `python -m clim_train`, SIGTERM"):
        check_stop(
            part, [*PYTHON, "resume", str(stopped)], stopped, "resume by `python -m clim_train`"
        )

    with part.guarded("resume by `deepspeed`"):
        with started(part, [*launcher(), "resume", str(stopped)], "resume") as program:
            status = program.wait(END_SECONDS)
        check_end(part, "resume by `deepspeed`", status, program, stopped, steps)

    if time.monotonic() - began > part.seconds - 30:
        part.check("export", False, "left out: no time")
        return
    with part.guarded("export"):
        check_export(part, plain)


# -- what is started -------------------------------------------------------------------------------


def launcher() -> list[str]:
    """The command `deepspeed --num_gpus 1 --module clim_train`, also where its script is not on the
    path."""
    port = f"--master_port={free_port()}"
    return [
        sys.executable,
        "-m",
        "deepspeed.launcher.runner",
        "--num_gpus=1",
        port,
        "--module",
        "clim_train",
    ]


def clim_options(photos: Photos, folder: Path) -> list[str]:
    """CLIM of EVA02-B/16 at the recipe's 1024 px, from random weights."""
    return ["clim_coco_evab16", *common_options(photos, folder)]


def clipself_options(photos: Photos, folder: Path) -> list[str]:
    """CLIPSelf of EVA02-B/16 with two images of 512 px per step: short steps, of which many are
    left at the stop."""
    return ["clipself_coco_patches_evab16", "--data.image-px=512", *common_options(photos, folder)]


def small_options(photos: Photos, folder: Path) -> list[str]:
    """CLIM of a small tower that open_clip knows, on a CPU."""
    sizes = [
        "--data.batch-size=8",
        "--data.mosaic.canvas-px=64",
        "--data.mosaic.single-px=32",
        "--data.workers=0",
    ]
    engine = ["--engine.device=cpu", "--engine.precision=fp32", "--run.no-tensorboard"]
    tower = ["--model.name=ViT-S-32-alt", "--model.unlocked-blocks=1"]
    return ["clim_coco_vitb16", *tower, *sizes, *engine, *common_options(photos, folder)]


def common_options(photos: Photos, folder: Path) -> list[str]:
    return [
        "--model.pretrained=None",
        f"--data.images={photos.images}",
        f"--run.folder={folder}",
        "--run.log-every=1",
        "--run.no-bar",
        "--schedule.warmup-steps=1",
    ]


@dataclass
class Program:
    """A command that runs, and what it has printed."""

    process: subprocess.Popen
    log: Path
    began: float

    def wait(self, seconds: float) -> int:
        """Return the exit status (negative: a signal). Raises TimeoutExpired."""
        return self.process.wait(seconds)

    def group_ended(self, seconds: float) -> bool:
        """Wait until no process of the group runs; the launcher may end before what it has
        started."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            self.process.poll()
            if not _running(self.process.pid):
                return True
            time.sleep(0.05)
        return False

    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    def last_words(self) -> str:
        return self.printed()[-1500:]


@contextlib.contextmanager
def started(part: Part, command: Sequence[str], name: str) -> Iterator[Program]:
    """Start a command in a process group of its own; whatever is left of the group is killed at the
    end."""
    environment = {key: value for key, value in os.environ.items() if key not in RANK_VARIABLES}
    if not part.on_gpu:
        environment.update(DS_ACCELERATOR="cpu", CUDA_VISIBLE_DEVICES="")
    log = part.folder / f"{name}.log"
    began = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        yield Program(process, log, began)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for_steps(
    program: Program, folder: Path, steps: int, seconds: float = END_SECONDS
) -> float:
    """Wait until the run has written so many lines of metrics; return the seconds from start to
    first line.

    Raises ValueError when the program ends, or the time does, before.
    """
    first = None
    before = len(_losses(folder))
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        seen = len(_losses(folder)) - before
        if seen >= 1 and first is None:
            first = time.monotonic() - program.began
        if seen >= steps and first is not None:
            return first
        if program.process.poll() is not None:
            raise ValueError(
                f"ended with {program.process.returncode} before step {steps}: "
                f"{program.last_words()}"
            )
        time.sleep(0.01)
    raise ValueError(f"step {steps} was not reached in {seconds:.0f} s: {program.last_words()}")


# -- what is checked -------------------------------------------------------------------------------


def check_whole_run(part: Part, options: list[str], folder: Path, steps: int) -> None:
    """A run from its start to its end, and how long it takes to its first step."""
    with started(part, [*PYTHON, *options], "plain") as program:
        first = wait_for_steps(program, folder, 1)
        status = program.wait(END_SECONDS)
    part.figure(
        "start-up of `python -m clim_train` (CLIM, EVA02-B/16, 1024 px)",
        first,
        "s to the end of step 1",
    )
    check_end(part, "clim by `python -m clim_train`", status, program, folder, steps)


def check_launcher_stop(part: Part, options: list[str], folder: Path) -> None:
    """SIGTERM to the launcher and its processes, as a scheduler sends it: the step is finished and
    saved."""
    name = "clipself by `deepspeed --num_gpus 1 --module clim_train`"
    with started(part, [*launcher(), *options], "launcher") as program:
        first = wait_for_steps(program, folder, SEEN_STEPS)
        os.killpg(program.process.pid, signal.SIGTERM)
        ended = program.group_ended(END_SECONDS)
        status = program.process.returncode
    part.figure(
        "start-up of `deepspeed --module clim_train` (CLIPSelf)", first, "s to the end of step 1"
    )
    said = "stopped at step" in program.printed()
    # The launcher itself ends by the signal: 75 is the status of the process that trains.
    detail = f"the launcher's own status is {status}"
    part.check(
        f"{name}, SIGTERM: says where it stopped", said, detail if said else program.last_words()
    )
    part.check(f"{name}, SIGTERM: all processes end", ended)
    part.check(
        f"{name}, SIGTERM: checkpoint is there", checkpoint_of(folder) == len(_losses(folder)) > 0
    )


def check_stop(part: Part, command: list[str], folder: Path, name: str) -> None:
    """SIGTERM to the process that trains: exit status 75, and a checkpoint of the last step."""
    before = len(_losses(folder))
    with started(part, command, "stop") as program:
        wait_for_steps(program, folder, SEEN_STEPS)
        os.kill(program.process.pid, signal.SIGTERM)
        status = program.wait(END_SECONDS)
    part.check(
        f"{name}, SIGTERM: exit status 75",
        status == EXIT_STOPPED,
        f"{status}: {program.last_words()[-200:]}",
    )
    after = len(_losses(folder))
    part.check(
        f"{name}, SIGTERM: checkpoint is there",
        checkpoint_of(folder) == after > before,
        f"step {after}",
    )


def check_end(
    part: Part, name: str, status: int, program: Program, folder: Path, steps: int
) -> None:
    """A run that has reached its last step: status 0, a line for each step, finite losses, a
    model."""
    part.check(
        f"{name}: exit status 0", status == 0, f"{status}: {program.last_words()}" if status else ""
    )
    check_folder(part, name, folder, steps)


def check_folder(part: Part, name: str, folder: Path, steps: int) -> None:
    found = _losses(folder)
    fine = list(found) == list(range(1, steps + 1)) and all(map(math.isfinite, found.values()))
    part.check(
        f"{name}: one finite loss for each of {steps} steps", fine, str(found) if not fine else ""
    )
    part.check(f"{name}: model is written", (folder / "model" / "model.safetensors").is_file())


def check_export(part: Part, folder: Path) -> None:
    """`export` writes from the last checkpoint what the end of training wrote."""
    path = folder / "model" / "model.safetensors"
    wanted = path.read_bytes()
    path.unlink()
    with started(part, [*PYTHON, "export", str(folder)], "export") as program:
        status = program.wait(END_SECONDS)
    part.check("export: exit status 0", status == 0, program.last_words() if status else "")
    part.check("export: the same bytes as at the end of training", path.read_bytes() == wanted)


def rehearse(part: Part, photos: Photos) -> None:
    """One start and stop as a command; resume and export in this process."""
    from clim_train.__main__ import main

    folder, steps = part.folder / "stopped", 60
    with part.guarded("clim by `python -m clim_train`, SIGTERM"):
        options = [*small_options(photos, folder), f"--schedule.steps={steps}"]
        check_stop(part, [*PYTHON, *options], folder, "clim by `python -m clim_train`")

    with part.guarded("resume"):
        part.check("resume: exit status 0", main(["resume", str(folder)]) == 0)
        check_folder(part, "resume", folder, steps)

    with part.guarded("export"):
        path = folder / "model" / "model.safetensors"
        wanted = path.read_bytes()
        path.unlink()
        part.check("export: exit status 0", main(["export", str(folder)]) == 0)
        part.check("export: the same bytes as at the end of training", path.read_bytes() == wanted)


def checkpoint_of(folder: Path) -> int:
    """Step of the newest checkpoint, 0 where there is none."""
    latest = folder / "checkpoints" / "latest"
    return int(latest.read_text().strip().removeprefix("step-")) if latest.is_file() else 0


def _losses(folder: Path) -> dict[int, float]:
    """Losses by step, in the order of the lines; none before the run has begun."""
    if not (folder / "metrics.jsonl").is_file():
        return {}
    return {line["step"]: line["loss"] for line in read_metrics(folder) if "loss" in line}


def _running(group: int) -> bool:
    """Whether a process of the group runs. One that has ended counts no more, also where nobody has
    asked for it."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name) state parent group ...: the name may hold spaces and brackets.
            state, _, found = path.read_text().rpartition(")")[2].split()[:3]
            if int(found) == group and state != "Z":
                return True
    return False
