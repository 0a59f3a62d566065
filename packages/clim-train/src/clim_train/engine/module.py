"""The module that DeepSpeed sees: trainable parts of a task's model, and the loss as its forward.

Frozen parts stay outside on purpose. DeepSpeed would partition, gather and checkpoint them for
nothing. And a frozen text tower runs only for new captions, so on some ranks and not on others:
under ZeRO-3 the ranks would wait for each other for ever.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from clim_train.task import Task


class EngineModule(nn.Module):
    """A module whose parameters are those that train, and whose forward is the task's loss.

    Args:
        task: its model's parameters outside `task.trainable_parameters()` get `requires_grad=False`
            here.
        device_type: where batches and arithmetic are; offloaded parameters may lie elsewhere.
        autocast: dtype of the arithmetic where weights stay float32, or None for the dtype of the
            weights.
    """

    task: Task

    def __init__(
        self, task: Task, *, device_type: str, autocast: torch.dtype | None = None
    ) -> None:
        super().__init__()
        freeze_the_rest(task)
        self.model = trainable_tree(task.model)
        self.device_type = device_type
        self.autocast = autocast
        # Not as attributes: they would be registered as submodules, frozen parts and all.
        object.__setattr__(self, "task", task)

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return (loss, detached scalars) of one micro-batch."""
        autocast = self.autocast
        with torch.autocast(self.device_type, dtype=autocast, enabled=autocast is not None):
            scalars = self.task.loss(batch)
        if "loss" not in scalars:
            raise ValueError(
                f"the task returned {sorted(scalars)}: its loss(batch) must have a 'loss'"
            )

        detached = {name: value.detach().float() for name, value in scalars.items()}
        # A tuple: ZeRO-3 finds the loss in tensors and tuples only, and gathers weights for the
        # backward pass there.
        return scalars["loss"], detached


def freeze_the_rest(task: Task) -> None:
    """Set `requires_grad=False` on every parameter of the model that the task does not train."""
    names = set(task.trainable_parameters())
    for name, parameter in task.model.named_parameters():
        parameter.requires_grad_(name in names)


def trained_entries(task: Task) -> list[str]:
    """Return the names in `task.model.state_dict()` of all floats that training can change.

    These are the trainable parameters, and the buffers of modules whose parameters all train
    (running statistics) or that have `remembers`, see `trainable_tree`; other modules stay in
    evaluation mode. `RegionModel.freeze` never trains batch norms, so it has no such buffers.
    """
    freeze_the_rest(task)
    entries = set(task.trainable_parameters())
    for name, buffer in trainable_tree(task.model).named_buffers():
        if buffer.is_floating_point():
            entries.add(name)
    return sorted(entries & task.model.state_dict().keys())


def trainable_tree(module: nn.Module) -> nn.Module:
    """Return the part of a module tree that trains, under the same names.

    A submodule whose parameters all train is in it as it is. For one with both kinds there is an
    empty module (a stand-in) that holds its trainable parameters and children. Frozen ones are
    missing. A submodule without parameters is in it where it says that its buffers change in
    training, by an attribute `remembers` that is true.
    """
    tree = nn.Module()
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.requires_grad:
            tree.register_parameter(name, parameter)

    for name, child in module.named_children():
        trains = [parameter.requires_grad for parameter in child.parameters()]
        remembers = getattr(child, "remembers", False) and not trains
        if remembers or (trains and all(trains)):
            tree.add_module(name, child)
        elif any(trains) or any(getattr(one, "remembers", False) for one in child.modules()):
            tree.add_module(name, trainable_tree(child))
    return tree


def replace_parameters(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Give the named parameters of `model` new `nn.Parameter`s; shapes may change.

    New objects, because an engine leaves hooks, gradients and partitions on the old ones. A tied
    parameter, which has several names, stays one.
    """
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for leaf, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            owners.setdefault(id(parameter), []).append((module, leaf))

    for name, value in values.items():
        old = model.get_parameter(name)
        new = nn.Parameter(value.detach(), requires_grad=old.requires_grad)
        for owner, leaf in owners[id(old)]:
            owner.register_parameter(leaf, new)


def scalars_to_vectors(task: Task) -> None:
    """Give trainable 0-dimensional parameters (logit_scale) the shape (1,).

    DeepSpeed broadcasts parameters as bytes and scales gradients in place, neither of which works
    with 0 dimensions.
    """
    trained = task.trainable_parameters().items()
    scalars = {name: p.data.reshape(1) for name, p in trained if p.ndim == 0}
    replace_parameters(task.model, scalars)
