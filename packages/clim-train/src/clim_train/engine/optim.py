"""Optimizers with the parameter groups of the recipes: with weight decay, without, and with
bounds."""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import nn

from clim_train.options.sections import OptimConfig

NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm2d,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)
_NEVER_DECAYED = ("bn", "ln", "bias", "logit_scale")


def decays(name: str, ndim: int) -> bool:
    """Tell whether weight decay applies: at least 2 dimensions, and a name without bn, ln, bias and
    logit_scale."""
    return ndim >= 2 and not any(part in name for part in _NEVER_DECAYED)


def norm_parameters(model: nn.Module) -> set[str]:
    """Return the names of the parameters of norms: batch, group, layer and instance norms."""
    found = set()
    for name, module in model.named_modules():
        if isinstance(module, NORMS):
            prefix = f"{name}." if name else ""
            found |= {prefix + leaf for leaf, _ in module.named_parameters(recurse=False)}
    return found


def parameter_groups(
    parameters: Mapping[str, nn.Parameter],
    *,
    weight_decay: float,
    decay: str = "matrices",
    norms: Collection[str] = (),
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> list[dict]:
    """Return the groups: decayed, not decayed, and one for each parameter with bounds.

    A bounded parameter has a group of its own, with its `bounds`, so that the limits still apply
    where DeepSpeed flattens a group into one partitioned vector. With `decay` "all" every parameter
    decays, with "all_but_norms" all but `norms`, else those that `decays` names.

    Raises ValueError when there is nothing to train or a bound names no parameter.
    """
    bounds = bounds or {}
    if not parameters:
        raise ValueError("the task has no trainable parameters: raise model.unlocked_blocks")
    if unknown := sorted(set(bounds) - set(parameters)):
        raise ValueError(
            f"bounds name parameters that do not train: {unknown}; name some of "
            f"{list(parameters)[:5]} ..."
        )

    free = {name: p for name, p in parameters.items() if name not in bounds}
    rules: Mapping[str, Callable[[str, nn.Parameter], bool]] = {
        "all": lambda name, p: True,
        "all_but_norms": lambda name, p: name not in norms,
        "matrices": lambda name, p: decays(name, p.ndim),
    }

    shrinks = {name: rules[decay](name, p) for name, p in parameters.items()}
    decayed = [p for name, p in free.items() if shrinks[name]]
    plain = [p for name, p in free.items() if not shrinks[name]]

    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]

    groups += [
        {
            "params": [parameters[name]],
            "weight_decay": weight_decay if shrinks[name] else 0.0,
            "bounds": limits,
        }
        for name, limits in bounds.items()
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(
    parameters: Mapping[str, nn.Parameter],
    config: OptimConfig,
    *,
    norms: Collection[str] = (),
    bounds: Mapping[str, tuple[float, float]] | None = None,
    fused: bool = False,
) -> torch.optim.Optimizer:
    """Build AdamW or SGD over `parameter_groups`.

    After each step every bounded parameter is clamped to its limits.
    """
    groups = parameter_groups(
        parameters,
        weight_decay=config.weight_decay,
        decay=config.decay,
        norms=norms,
        bounds=bounds,
    )
    optimizer: torch.optim.Optimizer
    if config.kind == "sgd":
        optimizer = torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, fused=fused or None
        )
    else:
        optimizer = torch.optim.AdamW(
            groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused or None
        )
    optimizer.register_step_post_hook(_clamp_to_bounds)
    return optimizer


@torch.no_grad()
def _clamp_to_bounds(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
    # On the optimizer's own tensors: under ZeRO these are the fp32 partitions, which the model's
    # copy follows.
    for group in optimizer.param_groups:
        if "bounds" in group:
            for parameter in group["params"]:
                parameter.clamp_(*group["bounds"])
