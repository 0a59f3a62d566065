"""The export of a run: the start weights, the trained weights, and the model between them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist
from clim_data.processes import Ranks
from clim_models import interpolate_weights
from clim_models.checkpoints import checksum, save_tensors
from torch import Tensor

from clim_train.engine.engine import Engine
from clim_train.engine.module import trained_entries
from clim_train.options.device import choose_device
from clim_train.options.run_options import RunOptions
from clim_train.run.checkpoints import UNIVERSAL, CheckpointFolder
from clim_train.run.resuming import needs_universal, newest_whole
from clim_train.run.weights import load_start_weights, save_start_weights
from clim_train.task import Task


class RunWeights:
    """The start weights and the trained weights of a run, and the files made of them. Collective.

    The part that trains is in the run folder, too: a resumed run takes it from there.

    Args:
        task: with the weights that training starts from.
        folder: of the run.
        resume: take the start weights of the folder, if it has them.
    """

    def __init__(self, task: Task, folder: Path, *, resume: bool) -> None:
        self.task = task
        self.folder = folder
        self.trained_names = trained_entries(task)
        state = {}
        for name, value in task.model.state_dict().items():
            state[name] = value.detach().cpu().clone()

        trained = set(self.trained_names)
        frozen_sum = checksum({name: state[name] for name in state if name not in trained})
        path = folder / "start.safetensors"
        if resume and path.is_file():
            state.update(load_start_weights(path, frozen_sum))
        elif Ranks.of_group().is_first:
            save_start_weights(path, {name: state[name] for name in self.trained_names}, frozen_sum)
        dist.barrier()
        self.start = state

    def restore(self, trained: Mapping[str, Tensor]) -> None:
        """Load the trained weights, and the start weights of all others, into the task's model."""
        # By tensor: a tied weight has several names, of which the engine knows one.
        entries = self.task.model.state_dict(keep_vars=True)
        new = {id(entries[name]): trained[name] for name in trained if name in entries}
        state = {name: new.get(id(entries[name]), value) for name, value in self.start.items()}
        self.task.model.load_state_dict(state)

    def write(self, alpha: float) -> Path:
        """Write `model/` and `trained.safetensors` from the task's model; return `model/`.

        The weights of `model/` are `alpha` * trained + (1 - `alpha`) * start.
        """
        trained = {name: value.cpu() for name, value in self.task.model.state_dict().items()}
        path = self.folder / "trained.safetensors"
        save_tensors({name: trained[name] for name in self.trained_names}, path)

        state = interpolate_weights(trained, self.start, alpha)
        self.task.save(self.folder / "model", state)
        return self.folder / "model"


def export_checkpoint(config: RunOptions, task: Task, *, program: str = "clim-train") -> Path:
    """Write `model/` of a run from its newest whole checkpoint, without its data. Collective.

    Args:
        config: of the run; `start_distributed` was called.
        task: with the weights that training started from.

    Raises FileNotFoundError where there is no checkpoint, ValueError where none is whole or where
    it has to be converted by `program` first.
    """
    folder = Path(config.run.folder)
    world_size = Ranks.of_group().world_size
    config = replace(config, engine=config.engine.for_ranks(world_size))

    checkpoint = newest_whole(CheckpointFolder(folder / "checkpoints"))
    if checkpoint is None:
        raise FileNotFoundError(
            f"{folder} has no complete checkpoint: give the folder of a run that has saved one"
        )
    stage = config.engine.zero_stage or 0
    universal = needs_universal(checkpoint, zero_stage=stage, program=program)

    weights = RunWeights(task, folder, resume=True)
    engine = Engine(task, config, device=choose_device(config.engine), universal=universal)
    try:
        engine.load(checkpoint.parent, checkpoint.name + (UNIVERSAL if universal else ""))
    except BaseException:
        engine.discard()
        raise
    weights.restore(engine.close())
    if Ranks.of_group().is_first:
        weights.write(config.run.alpha)
    dist.barrier()
    return folder / "model"
