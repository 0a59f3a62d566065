"""Training on the device: save, resume and export, equal to the last digit."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from clim_models import RegionModel, create_model
from clim_train import TrainConfig, Trainer, build_loader, build_task, read_metrics
from clim_train.run import AgreedError
from torch import Tensor

from gpu_parts.record import Part
from gpu_parts.training_cases import THINGS, make_model

SAVED, LAST = 3, 6  # step of the checkpoint, and of the end


class Stopped(AgreedError):
    """Ends a run after its checkpoint, as if the process had been killed there."""


def check_resume(part: Part, config: TrainConfig) -> None:
    """A run that is stopped and resumed against one that is not: equal losses and weights; then the
    export.

    The algorithms are deterministic here. The usual ones add the gradients of boxes by atomic
    operations, whose order is another in each run.
    """
    method = config.task.name
    config = replace(
        config,
        schedule=replace(config.schedule, steps=LAST, warmup_steps=2),
        run=replace(config.run, save_every=SAVED, keep=1),
    )
    if method == "clim":
        # Kept text features would be computed in other batches after a stop, and round otherwise.
        config = replace(config, task=replace(config.task, text_cache=0))

    for name in ("whole", "stopped"):
        shutil.rmtree(_in_folder(config, name).run.folder, ignore_errors=True)

    with deterministic():
        model = make_model(config, part.device)
        start = {name: value.cpu().clone() for name, value in model.state_dict().items()}
        whole = fit(_in_folder(config, "whole"), model, start)
        with contextlib.suppress(Stopped):
            fit(_in_folder(config, "stopped"), model, start, stop_at=SAVED)
        before = [
            line["loss"]
            for line in read_metrics(_in_folder(config, "stopped").run.folder)
            if "loss" in line
        ]
        resumed = fit(_in_folder(config, "stopped"), model, start, resume=True)

    wanted, found = torch.tensor(whole[0]), torch.tensor(resumed[0])
    part.close_to(
        f"{method}: two runs from one seed, deterministic",
        torch.tensor(before),
        wanted[:SAVED],
        0.0,
    )
    part.close_to(
        f"{method}: losses of a resumed run", found, wanted, 0.0, "equal to the last digit"
    )
    worst = max((resumed[1][name] - value).abs().max().item() for name, value in whole[1].items())
    part.within(f"{method}: weights of a resumed run", worst, 0.0, "equal to the last digit")

    trained = resumed[1]
    moved = any(bool((start[name].float() != value).any()) for name, value in trained.items())
    part.check(f"{method}: the weights moved", moved)
    folder = Path(_in_folder(config, "stopped").run.folder) / "model"
    loaded = create_model(config.model.name, pretrained=folder).state_dict()
    worst = max(
        (loaded[name].float() - value).abs().max().item() for name, value in trained.items()
    )
    part.within(
        f"{method}: export, loaded again", worst, 0.0, "alpha 1: the trained weights themselves"
    )


def fit(
    config: TrainConfig,
    model: RegionModel,
    start: dict[str, Tensor],
    *,
    stop_at: int | None = None,
    resume: bool = False,
) -> tuple[list[float], dict[str, Tensor]]:
    """Train with the real loader and `Trainer`; return the losses and the weights, on the CPU."""
    model.float().load_state_dict(start)
    loader = build_loader(config)
    trainer = Trainer(config, build_task(config, model, THINGS), loader, resume=resume)
    if stop_at is not None:
        save = trainer.save

        def save_and_stop() -> Path:
            path = save()
            if trainer.step == stop_at:
                raise Stopped
            return path

        trainer.save = save_and_stop  # type: ignore[method-assign]
    with trainer:
        trainer.fit()
    losses = [line["loss"] for line in read_metrics(config.run.folder) if "loss" in line]
    return losses, {
        name: value.detach().float().cpu().clone() for name, value in model.state_dict().items()
    }


def _in_folder(config: TrainConfig, name: str) -> TrainConfig:
    return replace(config, run=replace(config.run, folder=f"{config.run.folder}-{name}"))


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Inside, equal inputs give equal bits, or an operator that cannot do so raises."""
    # RoIAlign's deterministic form would be compiled on its first call, which takes longer than it
    # saves.
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        del os.environ["TORCHDYNAMO_DISABLE"]
