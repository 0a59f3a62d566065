"""Fixtures every test may use: the golden cases and the tiny towers."""

import gc
import json
import os
import re
import signal
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from device import DEVICE

# A shell that starts the tests in the background (`&`, nohup) has them ignore these signals, and
# the programs that they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

WORKER_GIB = 3
"""Memory that a process of tests and the programs that it starts may take."""

MOST_WORKERS = 8
"""More processes end no earlier: the longest test takes an eighth of the time of all."""

GOLDEN = Path(os.environ.get("CLIM_GOLDEN", Path(__file__).parent / "golden")).absolute()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the processes of `-n auto`: one per core and per `WORKER_GIB` of free memory.

    A single file runs in one process, because each process imports torch first.
    """
    arguments = [Path(argument.partition("::")[0]) for argument in config.args]
    if len(arguments) == 1 and arguments[0].is_file():
        return 0

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, free_memory_gib() // WORKER_GIB, MOST_WORKERS))


def free_memory_gib() -> int:
    """Return the memory that new processes may take, in GiB; 8 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 8
    (available,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return int(available) >> 20


@dataclass(frozen=True)
class GoldenCase:
    """One case: `meta` is its JSON sidecar, `arrays` the npz beside it."""

    meta: dict
    arrays: dict[str, np.ndarray]
    folder: Path

    def tensor(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[key]).to(DEVICE)

    def strided(self, key: str) -> tuple[torch.Tensor, int]:
        """(tensor, N) of `key_strideN`, which holds every N-th row and column of a map; (tensor, 1)
        of a whole one."""
        found = [
            (name, re.fullmatch(re.escape(key) + r"_stride(\d+)", name)) for name in self.arrays
        ]
        strided = [(self.tensor(name), int(match[1])) for name, match in found if match]
        return strided[0] if strided else (self.tensor(key), 1)

    def numbers(self, prefix: str) -> range:
        """The numbers of the arrays prefix0, prefix1, ...: one for each image of the case."""
        count = 0
        while f"{prefix}{count}" in self.arrays:
            count += 1
        assert count, f"the case has no {prefix}0"
        return range(count)

    def key(self, prefix: str) -> str:
        """The one key that starts with `prefix` and ends with a number, as `..._first6`."""
        (found,) = [key for key in self.arrays if key.startswith(prefix)]
        return found

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        """Tensors whose key starts with `prefix`, without it: `under("sd/")` is the state dict."""
        return {k[len(prefix) :]: self.tensor(k) for k in self.arrays if k.startswith(prefix)}


@cache
def load_case(family: str, name: str) -> GoldenCase:
    folder = GOLDEN / family
    sidecar = folder / f"{name}.json"
    if not sidecar.exists() and "CLIM_GOLDEN" in os.environ:
        pytest.skip(f"the set in CLIM_GOLDEN has no {family}/{name}")
    meta = json.loads(sidecar.read_text())
    npz = folder / f"{name}.npz"
    arrays = dict(np.load(npz)) if npz.exists() else {}
    return GoldenCase(meta, arrays, folder)


@pytest.fixture(scope="session")
def golden():
    """`golden("case02_vit")` -> GoldenCase of tests/golden/clip (or of the folder in
    CLIM_GOLDEN)."""
    return lambda name, family="clip": load_case(family, name)


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _threads():
    """One thread for this process and for all that it starts.

    The models are tiny, and the threads of several processes on two cores wait for each other.
    """
    threads = os.environ.get("CLIM_TEST_THREADS", "1")
    torch.set_num_threads(int(threads))
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, threads)


@pytest.fixture(autouse=True, scope="session")
def _coarse_pictures():
    """Pictures of few dots: drawing them takes longer than what the tests look at."""
    with pytest.MonkeyPatch.context() as patch:
        # clim-data and clim-models are also tested without the packages above them.
        if find_spec("clim_eval.pictures.files") is not None:
            patch.setattr("clim_eval.pictures.files.DPI", 40)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Import all test modules without garbage collection, and leave what they made out of it.

    These are 700,000 objects, and each collection that looks at them takes 0.3 s.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_unconfigure():
    """Let the interpreter's end find all objects: some libraries complain about what is left."""
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="module")
def _few_objects_to_collect():
    """Leave old objects out of garbage collection again, if a test took them back into it."""
    if gc.get_freeze_count() == 0:
        gc.collect()
        gc.freeze()
