"""The choice of the checkpoint that a run continues from, made by all ranks together."""

import json
import logging
from pathlib import Path

import torch.distributed as dist
from clim_data.processes import Ranks, from_first_rank

from clim_train.run.checkpoints import UNIVERSAL, CheckpointFolder
from clim_train.run.manifest import find_damage
from clim_train.run.peers import first_problem

logger = logging.getLogger(__name__)


def newest_whole(checkpoints: CheckpointFolder) -> Path | None:
    """Return the newest undamaged checkpoint; damaged newer ones are logged and renamed.
    Collective.

    None when there is no checkpoint yet. Raises ValueError when there are some and none is whole.
    """
    names = from_first_rank([path.name for path in checkpoints.complete()])
    found, damaged = checkpoints.newest_whole(_shared_damage, names)
    for name, fault in damaged.items():
        if Ranks.of_group().is_first:
            checkpoints.set_aside(name)
            logger.warning("%s is damaged (%s): the run continues from %s", name, fault, found)
    dist.barrier()
    return found


def needs_universal(checkpoint: Path, *, zero_stage: int, program: str = "clim-train") -> bool:
    """Tell whether another number of ranks wrote the checkpoint, so that its conversion is to be
    loaded. Collective.

    Raises ValueError if it was not converted by `program`, or if its conversion is damaged.
    """
    before = json.loads((checkpoint / "trainer.json").read_text())["world_size"]
    if before == Ranks.of_group().world_size or zero_stage == 0:
        return False  # nothing is partitioned at stage 0
    converted = checkpoint.with_name(checkpoint.name + UNIVERSAL)
    command = f"{program} convert {checkpoint.parents[1]}"
    if not converted.is_dir():
        raise ValueError(
            f"{checkpoint} was written by {before} processes, this run has "
            f"{Ranks.of_group().world_size}: "
            f"run `{command}` once, then the same resume command again"
        )
    if fault := _shared_damage(converted):
        raise ValueError(f"{converted} is damaged ({fault}): delete it, then run `{command}`")
    return True


def _shared_damage(folder: Path) -> str | None:
    return first_problem(find_damage(folder, *Ranks.of_group()))
