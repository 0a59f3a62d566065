"""Losses of short trainings of every method and of flmm's heads.

They run on the tiny models and the noise of the other tests, in one process.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clim_train import Trainer, read_metrics
from house import access

STEPS = 20
STAGES = (0, 1, 3)
TRAININGS = ("clim", "clipself", "regionclip", "flmm")


def collect(folder: Path, steps: int) -> dict[str, list[str]]:
    """Return the losses of the first steps of every run as hexadecimal floats, by `NAME-zeroN`."""
    found = {}
    for training in TRAININGS:
        for stage in STAGES:
            name = f"{training}-zero{stage}"
            found[name] = losses(training, stage, folder / name, steps)
    return found


def losses(training: str, stage: int, folder: Path, steps: int) -> list[str]:
    """Train in `folder` and return the losses of the first `steps` steps."""
    # The whole run is always planned, so that the learning rates of the first steps are the same.
    config, build = _planned(training, stage, folder)
    run = dataclasses.replace(config.run, save_every=steps)
    schedule = dataclasses.replace(config.schedule, steps=STEPS)
    trainer = build(dataclasses.replace(config, run=run, schedule=schedule))

    if steps < STEPS:
        access.helper("clim").fit_until(trainer, steps)
    else:
        trainer.fit()
    trainer.close()
    return [line["loss"].hex() for line in read_metrics(folder) if "loss" in line]


def _planned(training: str, stage: int, folder: Path) -> tuple[Any, Callable[[Any], Trainer]]:
    """Return a configuration, and the function that makes its trainer."""
    clim, regions, grounding = (access.helper(name) for name in ("clim", "regions", "grounding"))
    if training == "flmm":
        return grounding.tiny_config(folder, zero_stage=stage), grounding.tiny_trainer
    if training == "clim":
        clim.register_tiny_towers()
        return clim.tiny_config(folder, zero_stage=stage), clim.tiny_trainer
    return regions.region_config(training, folder, zero_stage=stage), regions.region_trainer
