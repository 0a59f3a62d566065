"""Random states of a process: seeded, saved, set back, and left alone by loading and evaluation."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

RANK_FILES = "rank?????.pt"
"""Pattern for the files of a checkpoint that hold the random states of a rank."""


def rank_file(rank: int) -> str:
    """Return the name of the file of a checkpoint that holds the random states of a rank."""
    return f"rank{rank:05d}.pt"


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  libraries below use the global generator
    torch.manual_seed(seed)


def random_states() -> dict[str, Any]:
    """Return all random states, of types that `torch.load(weights_only=True)` reads."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    assert isinstance(keys, np.ndarray)
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Restore what `random_states` returned, also on a machine without the GPUs of that one."""
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count() > 0:
        torch.cuda.set_rng_state_all(states["cuda"])


def without_random(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the same batches, fetched without drawing from torch's random numbers.

    A data loader draws a seed each time it starts, which a resumed run does once more than an
    uninterrupted one.
    """
    while True:
        state = torch.get_rng_state()
        try:
            batch = next(batches)
        except StopIteration:
            return
        finally:
            torch.set_rng_state(state)
        yield batch
