"""A process that has imported everything and forks the ranks of other tests' jobs.

python zygote.py

Importing torch, DeepSpeed and transformers takes a process longer than most jobs do, and a launch
by the deepspeed command does it four times. Reads one job a line from stdin, as JSON:

    {"script": path, "arguments": [...], "environments": [{...} for each rank], "log": path}

Each rank is a fork with its environment that runs the script as `python SCRIPT ARGUMENTS` would and
writes what it prints to LOG.RANK.log. When all ranks have ended, one line of JSON goes to stdout:
the exit status of each rank, negative where a signal ended it.
"""

import json
import os
import runpy
import sys
import traceback
from importlib import import_module
from pathlib import Path

# The tests' folder, for conftest, and the helpers of all tests.
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

# DeepSpeed chooses its accelerator when it is imported.
os.environ["DS_ACCELERATOR"] = "cpu"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch

# What the ranks of the tests' jobs would import, directly or at their first step.
NEEDED = (
    "clim_train.build",
    "clim_train.commands.main",
    "deepspeed",
    "flmm.commands.evaluate",
    "flmm.evaluation.masks",
    "flmm.evaluation.viscot",
    "region_training",
    "tiny_grounding",
    "torch._inductor.compile_fx",
    "torch.utils.cpp_extension",
    "transformers.models.llava.modeling_llava",
)


def run(script: str, arguments: list[str], environment: dict[str, str], log: str) -> int:
    """Fork a process that runs a script, and return its id."""
    pid = os.fork()
    if pid:
        return pid

    # From here on in the child, which never returns.
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(environment)

    status = 1
    fill_new_memory()
    try:
        sys.argv = [script, *arguments]
        runpy.run_path(script, run_name="__main__")
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def fill_new_memory() -> None:
    """Fill the tensors of `torch.empty` with NaN, and with the largest number where they are whole.

    Such memory mostly holds zeros, so a job that reads it before it writes it would fail once in
    hundreds of runs.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True


def main() -> None:
    torch.set_num_threads(1)
    for name in NEEDED:
        import_module(name)
    print("ready", flush=True)

    # `readline`, because a loop over stdin would wait for more lines than one.
    while line := sys.stdin.readline():
        job = json.loads(line)
        pids = []
        for rank, environment in enumerate(job["environments"]):
            log = f"{job['log']}.{rank}.log"
            pids.append(run(job["script"], job["arguments"], environment, log))

        ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(json.dumps(ends), flush=True)


if __name__ == "__main__":
    main()
