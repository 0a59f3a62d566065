"""Two ranks write to a folder what `test_two_ranks_detectors.py` looks at.

`zygote.py` forks them. By hand: deepspeed --num_accelerators 2 two_ranks_detectors.py FOLDER
"""

import json
import sys
from pathlib import Path

import torch

# The tests' folder, for conftest, and the helpers of all tests.
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import torch.distributed as dist
from clim_train.engine import start_distributed
from clim_train.options import choose_device
from detector_training import (
    COUNTS,
    DETECTORS,
    TOWERS,
    detector_config,
    detector_trainer,
    equal_draws,
    small_task,
    view_batch,
)
from tiny_training import fit_until, tiny_config, tiny_model, with_run

torch.set_num_threads(1)


def gradients(rank: int, method: str, step: int) -> dict:
    """Mean over ranks of the loss and of every gradient, and the statistics of the norms."""
    task = small_task(method, tiny_model(TOWERS[method]))
    task.model.train()
    loss = task.loss(view_batch(2 * step + rank, COUNTS[step][rank]))["loss"]
    loss.backward()
    found = {name: p.grad.clone() for name, p in task.trainable_parameters().items()}
    found["loss"] = loss.detach().clone()
    for value in found.values():
        dist.all_reduce(value)
        value /= 2
    norms = {n: b for n, b in task.model.named_buffers() if n.endswith(("_mean", "_var"))}
    return found | norms


def train(rank: int, folder: Path) -> None:
    """Whole trainings at two stages, and one that is interrupted and resumed."""
    place = {"rank": rank, "world_size": 2}
    for stage in (0, 2):
        config = detector_config("fvit", folder / f"zero{stage}", world_size=2, zero_stage=stage)
        detector_trainer(config, **place).fit()
    parts = with_run(
        detector_config("fvit", folder, world_size=2, zero_stage=2), folder=str(folder / "parts")
    )
    fit_until(detector_trainer(parts, **place), 4)
    detector_trainer(parts, resume=True, **place).fit()


def main() -> None:
    folder = Path(next(a for a in sys.argv[1:] if not a.startswith("--")))
    start_distributed(choose_device(tiny_config(folder).engine))
    rank = dist.get_rank()
    equal_draws()
    for method in DETECTORS:
        for step in range(len(COUNTS)):
            torch.save(gradients(rank, method, step), folder / f"{method}-{step}-{rank}.pt")
    train(rank, folder)
    dist.barrier()
    if rank == 0:
        (folder / "done.json").write_text(json.dumps({"world_size": dist.get_world_size()}))


if __name__ == "__main__":
    main()
