"""Two ranks write to a folder what `test_two_ranks.py` looks at.

`zygote.py` forks them. By hand: deepspeed --num_accelerators 2 two_ranks.py FOLDER
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import torch

# The tests' folder, for conftest, and the helpers of all tests.
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import torch.distributed as dist
from clim_models.losses import GatherFeatures, contrastive_loss
from clim_train import ClimTask, OptimConfig
from clim_train.engine import Engine, start_distributed
from clim_train.options import choose_device
from clim_train.run import RunningMean
from conftest import load_case
from tiny_training import (
    EVA,
    VIT,
    Crossed,
    fit_until,
    tiny_config,
    tiny_model,
    tiny_trainer,
    unit,
    with_run,
)

torch.set_num_threads(1)


def feature_gradients(rank: int) -> dict:
    """Loss and gradients of this rank's half of the golden features."""
    case = load_case("clip", "case04_clim_loss")
    rows = case.tensor(f"out/feat_2proc/rank{rank}/gi").shape[0]
    mine = slice(rank * rows, (rank + 1) * rows)
    images, texts = (
        case.tensor(f"in/feat/{k}_features")[mine].clone().requires_grad_()
        for k in ("image", "text")
    )
    scale = case.tensor("in/feat/logit_scale").clone().requires_grad_()
    loss = contrastive_loss(images, texts, scale, gather=GatherFeatures(2, rank))
    loss.backward()
    return {"loss": loss.detach(), "gi": images.grad, "gt": texts.grad, "gs": scale.grad}


def task_gradients(rank: int, name: str, mask: bool) -> dict:
    """Mean over ranks of the loss and of every gradient, each rank with one unit."""
    task = ClimTask(tiny_model(name), mask_duplicate_captions=mask)
    loss = task.loss(unit(rank))["loss"]
    loss.backward()
    found = {"loss": loss.detach().clone()}
    found.update({n: p.grad for n, p in task.trainable_parameters().items() if p.grad is not None})
    for value in found.values():
        dist.all_reduce(value)
        value /= 2
    return found


def crossed(rank: int, folder: Path, stage: int) -> dict:
    """Weights of `Crossed` after one step of SGD, of two micro-batches."""
    config = tiny_config(folder, world_size=2, zero_stage=stage, accumulation=2)
    optim = OptimConfig(kind="sgd", lr=0.1, weight_decay=0.0)
    config = dataclasses.replace(config, optim=optim)
    engine = Engine(Crossed(), config, device=torch.device("cpu"))
    for _ in range(2):
        engine.forward_backward(rank)
        engine.step(0.1)
    return engine.close()


def uneven_means(rank: int) -> dict:
    """Means of scalars of which rank 1 has one only."""
    means = RunningMean()
    means.add(
        {"loss": torch.tensor(1.0), "captions": torch.tensor(4.0)}
        if rank == 0
        else {"loss": torch.tensor(3.0)}
    )
    return means.reduce()


def train(rank: int, folder: Path) -> None:
    """Whole, interrupted and resumed trainings at stages 1 and 3."""
    options = {"rank": rank, "world_size": 2}
    for stage in (1, 3):
        whole = tiny_config(folder / f"whole{stage}", world_size=2, zero_stage=stage)
        tiny_trainer(whole, **options).fit()
        parts = with_run(whole, folder=str(folder / f"parts{stage}"))
        fit_until(tiny_trainer(parts, **options), 4)
        tiny_trainer(parts, resume=True, **options).fit()
        stopped = with_run(whole, folder=str(folder / f"stopped{stage}"))
        fit_until(tiny_trainer(stopped, **options), 4)
    for stage in (2, 3):
        config = tiny_config(folder / f"uneven{stage}", world_size=2, zero_stage=stage, steps=3)
        tiny_trainer(config, model=tiny_model(EVA), uneven=True, **options).fit()


def train_without_partitions(rank: int, folder: Path) -> None:
    """A run at stage 0 that stops at step 4."""
    options = {"rank": rank, "world_size": 2}
    fit_until(
        tiny_trainer(tiny_config(folder / "stopped0", world_size=2, zero_stage=0), **options), 4
    )


def be_killed_while_saving(rank: int, folder: Path) -> None:
    """Both processes die by SIGKILL with the checkpoint of step 4 written in part."""
    trainer = tiny_trainer(tiny_config(folder / "killed", world_size=2), rank=rank, world_size=2)
    save = trainer.engine.save

    def save_and_die(where, tag):
        save(where, tag)
        if trainer.step == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    trainer.engine.save = save_and_die
    trainer.fit()


def main() -> None:
    folder = Path(next(a for a in sys.argv[1:] if not a.startswith("--")))
    start_distributed(choose_device(tiny_config(folder).engine))
    rank = dist.get_rank()
    torch.save(feature_gradients(rank), folder / f"features{rank}.pt")
    for name in (VIT, EVA):
        for mask in (False, True):
            torch.save(task_gradients(rank, name, mask), folder / f"{name}-{mask}-{rank}.pt")
    for stage in (1, 2):
        torch.save(crossed(rank, folder, stage), folder / f"crossed{stage}-{rank}.pt")
    torch.save(uneven_means(rank), folder / f"means-{rank}.pt")
    train(rank, folder)
    train_without_partitions(rank, folder)
    if rank == 0:
        (folder / "done.json").write_text(json.dumps({"world_size": dist.get_world_size()}))
    dist.barrier()
    be_killed_while_saving(rank, folder)


if __name__ == "__main__":
    main()
