"""Small files of a run: configuration, versions, classes, and the state of a checkpoint."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from clim_data.files import remove_stale_drafts, write_json, write_text
from clim_data.processes import Ranks

from clim_train.engine.deepspeed_compat import only_tensors
from clim_train.options.paths import with_absolute_paths
from clim_train.options.run_options import RunOptions
from clim_train.run.checkpoints import CheckpointFolder
from clim_train.run.folder import check_run_folder, refuse_links, versions
from clim_train.run.loggers import RunLogger, open_loggers
from clim_train.run.metrics import RunningMean
from clim_train.run.randomness import random_states, rank_file, set_random_states

CLASSES_FILE = "classes.json"


def prepare_folder(
    config: RunOptions,
    checkpoints: CheckpointFolder,
    device: torch.device,
    loader: Any,
    *,
    resume: bool,
    program: str = "clim-train",
) -> None:
    """Open the run folder: the small files of a new run, no drafts of an old one. Collective.

    They are `config.json`, `versions.json` and, for a detector, `classes.json`.

    Raises ValueError where the folder has another run (or none, with `resume`), or links that lead
    outside.
    """
    folder = Path(config.run.folder)
    started = check_run_folder(folder, resume=resume, program=program)
    refuse_links(folder)
    # Nobody writes before everybody has looked.
    dist.barrier()

    if Ranks.of_group().is_first:
        checkpoints.prepare()
        remove_stale_drafts(folder)  # of a process that was killed while it wrote a file
        if not started:
            found = versions(Ranks.of_group().world_size, device)
            write_json(folder / "versions.json", found, indent=2)
            write_classes(folder, loader)
            write_text(folder / "config.json", with_absolute_paths(config).to_json())
    dist.barrier()


def loggers_of(config: RunOptions, start: int) -> list[RunLogger]:
    """Open the loggers of a run on rank 0; other ranks have none.

    Args:
        start: steps that are done.
    """
    if not Ranks.of_group().is_first:
        return []
    return open_loggers(config.run, asdict(config), Path(config.run.folder), start)


def write_classes(folder: Path, loader: Any) -> None:
    """Write the classes of a detector's loader: its export has no data to ask.

    Args:
        loader: others have no `trained_names`, and nothing is written.
    """
    trained = getattr(loader, "trained_names", None)
    if trained is not None:
        names = {"names": list(loader.class_names), "trained": list(trained)}
        write_json(folder / CLASSES_FILE, names)


def read_classes(folder: Path) -> tuple[list[str] | None, list[str]]:
    """Return the names that `write_classes` wrote, and the names that have data.

    Without the file they are None and []. Raises ValueError where it is damaged.
    """
    path = folder / CLASSES_FILE
    if not path.is_file():
        return None, []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return list(found["names"]), list(found["trained"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}): put back a copy") from error


def write_state(checkpoint: Path, state: Mapping[str, Any], means: RunningMean) -> None:
    """Write `trainer.json` with `state` on rank 0, and this rank's random numbers and means.

    Args:
        checkpoint: the folder, which the engine has made.
        state: as JSON holds it.
    """
    rank, world_size = Ranks.of_group()
    own = {"random": random_states(), "means": means.state_dict()}
    torch.save(own, checkpoint / rank_file(rank))

    if rank == 0:
        text = json.dumps({**state, "world_size": world_size})
        (checkpoint / "trainer.json").write_text(text + "\n")


def read_state(checkpoint: Path, means: RunningMean, device: torch.device) -> dict[str, Any]:
    """Return the `state` of `write_state`; random numbers and means continue.

    With another number of ranks there is no exact state for each: random numbers start anew.
    """
    state = json.loads((checkpoint / "trainer.json").read_text())
    rank, world_size = Ranks.of_group()
    if state["world_size"] == world_size:
        file = checkpoint / rank_file(rank)
        with only_tensors(file):
            own = torch.load(file, weights_only=True)
        means.load_state_dict(own["means"], device)
        set_random_states(own["random"])
    return state
