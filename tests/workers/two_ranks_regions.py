"""Two ranks write to a folder what `test_two_ranks_regions.py` looks at.

`zygote.py` forks them. By hand: deepspeed --num_accelerators 2 two_ranks_regions.py FOLDER
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
from region_training import (
    COUNTS,
    REGION_METHODS,
    region_config,
    region_task,
    region_trainer,
    region_unit,
)
from tiny_training import EVA, VIT, fit_until, tiny_config, with_run

torch.set_num_threads(1)


def task_gradients(rank: int, method: str, name: str, step: int) -> dict:
    """Mean over ranks of the loss and of every gradient, each rank with one unit."""
    task = region_task(method, name=name)
    loss = task.loss(region_unit(method, rank, COUNTS[step][rank]))["loss"]
    loss.backward()
    found = {
        "loss": loss.detach().clone(),
        **{n: p.grad for n, p in task.trainable_parameters().items()},
    }
    for value in found.values():
        dist.all_reduce(value)
        value /= 2
    return found


def class_samples(rank: int) -> list[torch.Tensor]:
    """Samples of classes of three batches, of ranks with labels and random numbers of their own."""
    task = region_task("regionclip", sampled_classes=6)
    torch.manual_seed(rank)
    labels = [[[3, 3, 9], [5]], [[1], []], [[0, 1, 2, 3], [4, 5, 6, 7]]]
    return [task.class_weights(torch.tensor(both[rank], dtype=torch.int64)) for both in labels]


def train(rank: int, folder: Path) -> None:
    """Whole trainings at stages 1 and 3, and one that is interrupted and resumed."""
    options = {"rank": rank, "world_size": 2}
    for method in REGION_METHODS:
        for stage in (1, 3):
            config = region_config(
                method, folder / f"{method}{stage}", world_size=2, zero_stage=stage
            )
            region_trainer(config, **options).fit()
    options["sampled_classes"] = 6
    whole = region_config("regionclip", folder / "sampled", world_size=2)
    region_trainer(whole, **options).fit()
    parts = with_run(whole, folder=str(folder / "resumed"))
    fit_until(region_trainer(parts, **options), 4)
    region_trainer(parts, resume=True, **options).fit()


def main() -> None:
    folder = Path(next(a for a in sys.argv[1:] if not a.startswith("--")))
    start_distributed(choose_device(tiny_config(folder).engine))
    rank = dist.get_rank()
    for method in REGION_METHODS:
        for name in (VIT, EVA):
            for step in range(len(COUNTS)):
                torch.save(
                    task_gradients(rank, method, name, step),
                    folder / f"{method}-{name}-{step}-{rank}.pt",
                )
    torch.save(class_samples(rank), folder / f"classes{rank}.pt")
    train(rank, folder)
    dist.barrier()
    if rank == 0:
        (folder / "done.json").write_text(json.dumps({"world_size": dist.get_world_size()}))


if __name__ == "__main__":
    main()
