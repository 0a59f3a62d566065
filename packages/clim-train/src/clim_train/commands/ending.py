"""The end of a `clim-train` training: pictures of the result, and the commands that come next."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clim_data.command_line import typed

from clim_train.methods.views import DetectionDataConfig

if TYPE_CHECKING:
    from clim_train.trainer import Trainer


def finish_run(trainer: "Trainer") -> list[str]:
    """Draw images before and after the training, and return the lines to print. On rank 0.

    `trainer.fit` has returned.
    """
    # Imported here: `list` and `show` need neither models nor pictures.
    from clim_models import RegionModel

    from clim_train.commands.before_after import write_before_after
    from clim_train.methods.table import find_method

    config: Any = trainer.config  # a TrainConfig
    model, folder = trainer.task.model, trainer.folder
    lines = []
    if isinstance(model, RegionModel):
        side = find_method(config.task.name).data.largest_px(config.data)
        picture = write_before_after(
            model, trainer.loader, folder, alpha=config.run.alpha, image_px=side
        )
        if picture is not None:
            lines.append(f"before and after: {picture}")
    return [*lines, *next_commands(config, folder)]


def next_commands(config: object, folder: Path) -> list[str]:
    """Return the commands that use a finished run, as this shell takes them."""
    program, run = typed("clim-eval"), shlex.quote(str(folder))
    if isinstance(getattr(config, "data", None), DetectionDataConfig):
        return [
            "next:",
            f'  {program} detect IMAGE "a cat" "a sofa" --checkpoint {run}',
            f"  {program} detection {run} --images IMAGES --annotations JSON --out DIR",
        ]
    return [
        "next:",
        f'  {program} show IMAGE "a cat" "a sofa" --pretrained {run}',
        f"  {program} alpha {run} --images IMAGES --captions-json JSON    # what it cost",
    ]
