"""The module DeepSpeed sees: the trainable parts of a task's model, and the task's loss as its
forward.

Frozen parts are left out on purpose. They would be partitioned, gathered and checkpointed for
nothing, and a frozen text tower that runs only for captions not seen before would run on some ranks
and not on others, where a partitioned one (ZeRO-3) waits for all of them.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from clim_train.task import Task


class EngineModule(nn.Module):
    """`forward(batch)` returns (loss, detached scalars) of the task; its parameters are the
    trainable ones.

    Args:
        task: its model's parameters outside `task.trainable_parameters()` get `requires_grad=False`
            here.
        device_type: where batches and arithmetic are; offloaded parameters may lie elsewhere.
        autocast: dtype of the arithmetic where weights stay float32, or None for the dtype of the
            weights.
    """

    def __init__(self, task: Task, *, device_type: str, autocast: torch.dtype | None = None):
        super().__init__()
        freeze_the_rest(task)
        self.model = trainable_tree(task.model)
        self.device_type, self.autocast = device_type, autocast
        # Not as attributes: they would be registered as submodules, frozen parts and all.
        object.__setattr__(self, "task", task)

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        # A tuple: ZeRO-3 finds the loss in tensors and tuples only, and gathers weights for the
        # backward pass there.
        with torch.autocast(
            self.device_type, dtype=self.autocast, enabled=self.autocast is not None
        ):
            scalars = self.task.loss(batch)
        if "loss" not in scalars:
            raise ValueError(
                f"the task returned {sorted(scalars)}: its loss(batch) must have a 'loss'"
            )
        return scalars["loss"], {name: value.detach().float() for name, value in scalars.items()}


def freeze_the_rest(task: Task) -> None:
    """Takes `requires_grad` from every parameter of the model that the task does not train."""
    names = set(task.trainable_parameters())
    for name, parameter in task.model.named_parameters():
        parameter.requires_grad_(name in names)


def trained_entries(task: Task) -> list[str]:
    """Names in `task.model.state_dict()` of all floats that training can change.

    These are the trainable parameters, and the buffers (running statistics) of modules whose
    parameters all train; other modules stay in evaluation mode. `RegionModel.freeze` never trains
    batch norms, so it has no such buffers.
    """
    freeze_the_rest(task)
    buffers = {
        name
        for name, buffer in trainable_tree(task.model).named_buffers()
        if buffer.is_floating_point()
    }
    return sorted({*task.trainable_parameters(), *buffers} & task.model.state_dict().keys())


def trainable_tree(module: nn.Module) -> nn.Module:
    """The part of a module tree that trains, under the same names.

    Submodules whose parameters all train are in it themselves; those that are mixed are stood in
    for by empty modules that hold their trainable parameters and children; frozen ones are missing.
    """
    tree = nn.Module()
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.requires_grad:
            tree.register_parameter(name, parameter)
    for name, child in module.named_children():
        trains = [parameter.requires_grad for parameter in child.parameters()]
        if trains and all(trains):
            tree.add_module(name, child)
        elif any(trains):
            tree.add_module(name, trainable_tree(child))
    return tree


def replace_parameters(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Gives the named parameters of `model` new `nn.Parameter`s with these values; shapes may
    change.

    New objects, because an engine leaves hooks, gradients and partitions on the old ones.
    """
    for name, value in values.items():
        owner_name, _, leaf = name.rpartition(".")
        owner = model.get_submodule(owner_name)
        trains = owner._parameters[leaf].requires_grad
        owner._parameters[leaf] = nn.Parameter(value.detach(), requires_grad=trains)


def scalars_to_vectors(task: Task) -> None:
    """Gives trainable 0-dimensional parameters (logit_scale) the shape (1,) while an engine holds
    them.

    DeepSpeed broadcasts parameters as bytes and scales gradients in place, neither of which 0
    dimensions allow.
    """
    scalars = {
        name: p.data.reshape(1) for name, p in task.trainable_parameters().items() if p.ndim == 0
    }
    replace_parameters(task.model, scalars)
