"""The batch script for SLURM, with stand-ins for the programs of a cluster."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "docs" / "slurm.sbatch"
STUBS = {
    "srun": 'exec "$@"',
    "scontrol": '[ "$1" = show ] && printf "node1\\nnode2\\n" || echo "scontrol $*"',
    "torchrun": 'echo "torchrun $*"; exit "$STATUS"',
}


@pytest.fixture
def submit(tmp_path):
    """`submit(run, words, status)` runs the script, whose training ends with `status`."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    for name, body in STUBS.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/bash\n{body}\n")
        program.chmod(0o755)

    def run_script(run, words, status=0):
        environment = {
            "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_NNODES": "2",
            "SLURM_GPUS_ON_NODE": "8",
            "SLURM_JOB_ID": "7",
            "STATUS": str(status),
        }
        return subprocess.run(
            ["bash", str(SCRIPT), str(run), *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run_script


def test_a_new_run_starts_on_all_nodes(submit, tmp_path):
    done = submit(tmp_path / "run", ["clim_coco_vitb16", "--data.shards", "coco/*.tar"])
    assert done.returncode == 0
    assert "--nnodes 2 --nproc-per-node 8" in done.stdout
    assert "--rdzv-endpoint node1:29500" in done.stdout
    end = f"-m clim_train clim_coco_vitb16 --data.shards coco/*.tar --run.folder {tmp_path / 'run'}"
    assert done.stdout.rstrip().endswith(end)


def test_a_stopped_run_is_queued_again_and_goes_on(submit, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "latest").touch()
    (run / "config.json").touch()
    done = submit(run, ["clim_coco_vitb16"], status=1)
    assert f"-m clim_train resume {run}\n" in done.stdout
    assert "scontrol requeue 7" in done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize("finished", [False, True])
def test_a_failed_or_finished_run_is_not_queued_again(submit, tmp_path, finished):
    run = tmp_path / "run"
    if finished:
        (run / "model").mkdir(parents=True)
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "latest").touch()
    done = submit(run, ["clim_coco_vitb16"], status=2)
    assert "requeue" not in done.stdout
    assert done.returncode == 2


def test_the_run_folder_is_needed(submit):
    done = submit("", [])
    assert done.returncode != 0
    assert "the run folder is missing" in done.stderr
