"""Weight decay groups of the original recipes, and bounds that survive the optimizer."""

import math

import pytest
import torch
from clim_train.engine.optim import build_optimizer, decays, parameter_groups
from clim_train.options.sections import OptimConfig
from tiny_towers import build_clip, build_eva
from torch import nn

TOWERS = ("eva", "vit", "resnet")


@pytest.mark.parametrize("tower", TOWERS)
def test_golden_decay_rule_on_original_names(golden, tower):
    lock = golden("case09_lock").meta
    shapes = golden(lock["weights"][tower]).under("sd/")
    for listed in lock["models"][tower]["k"].values():
        groups = {True: [], False: []}
        for name in listed["trainable"]:
            groups[decays(name, shapes[name].ndim)].append(name)
        assert sorted(groups[True]) == sorted(listed["decay"])
        assert sorted(groups[False]) == sorted(listed["no_decay"])


@pytest.mark.parametrize("tower", TOWERS)
def test_golden_decay_groups_of_our_models(golden, tower):
    """Other names (timm's for EVA), same shapes in each group; what gets no gradient may be
    missing."""
    lock = golden("case09_lock").meta
    case = golden(lock["weights"][tower])
    shapes = case.under("sd/")
    for k, listed in lock["models"][tower]["k"].items():
        if k == "0":
            # the original unlocks everything (EVA) or a frozen tower's pooling (ResNet): faults not
            # kept
            continue
        model = build_eva(case) if tower == "eva" else build_clip(case)
        model.freeze(int(k))
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        groups = parameter_groups(trained, weight_decay=0.1)
        ours = {
            group["weight_decay"]: sorted(tuple(p.shape) for p in group["params"])
            for group in groups
        }
        theirs = {0.1: listed["decay"], 0.0: listed["no_decay"]}
        assert ours == {
            decay: sorted(tuple(shapes[n].shape) for n in names)
            for decay, names in theirs.items()
            if names
        }


def test_betas_and_eps_reach_the_optimizer():
    optimizer = build_optimizer(
        {"w": nn.Parameter(torch.ones(2, 2))}, OptimConfig(betas=(0.5, 0.6), eps=1e-3, lr=0.2)
    )
    assert (optimizer.defaults["betas"], optimizer.defaults["eps"], optimizer.defaults["lr"]) == (
        (0.5, 0.6),
        1e-3,
        0.2,
    )


def test_bounded_parameter_is_clamped_after_each_step():
    scale, weight = nn.Parameter(torch.tensor([4.6])), nn.Parameter(torch.ones(2, 2))
    parameters = {"clip.logit_scale": scale, "w": weight}
    bounds = {"clip.logit_scale": (0.0, math.log(100))}
    optimizer = build_optimizer(parameters, OptimConfig(lr=1.0), bounds=bounds)
    for slope, limit in ((-1.0, math.log(100)), (1.0, 0.0)):
        for _ in range(60):
            scale.grad, weight.grad = torch.full_like(scale, slope), torch.full_like(weight, slope)
            optimizer.step()
            assert 0 <= scale.item() <= math.log(100) + 1e-6
        assert scale.item() == pytest.approx(limit)
    assert weight.abs().max() > 0


def test_nothing_to_train_and_unknown_bounds_are_errors():
    with pytest.raises(ValueError, match="unlocked_blocks"):
        parameter_groups({}, weight_decay=0.1)
    with pytest.raises(ValueError, match="do not train"):
        parameter_groups({"w": nn.Parameter(torch.ones(1))}, weight_decay=0.1, bounds={"v": (0, 1)})


def test_sgd_takes_the_steps_of_momentum_with_decay():
    weight = nn.Parameter(torch.tensor([[1.0, -2.0]]))
    config = OptimConfig(kind="sgd", lr=0.1, momentum=0.5, weight_decay=0.2, decay="all")
    optimizer = build_optimizer({"weight": weight}, config)
    value, speed = weight.detach().clone(), torch.zeros(1, 2)
    for _ in range(3):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
        speed = 0.5 * speed + 2 * value + 0.2 * value
        value = value - 0.1 * speed
    torch.testing.assert_close(weight.detach(), value)

    with pytest.raises(ValueError, match=r"together with optim\.kind 'sgd'"):
        OptimConfig(momentum=0.5)
    with pytest.raises(ValueError, match=r"with optim\.kind 'adamw'"):
        OptimConfig(kind="sgd", betas=(0.5, 0.5))
