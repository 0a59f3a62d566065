"""Comparison of a task's gradients with those of the original, whose parameters have other
names."""

import pytest
import torch
from clim_models.checkpoints import to_open_clip


def our_names(names):
    """The names of a RegionModel's parameters for a list of original ones, in their order."""
    return [
        f"clip.{name}"
        for name in to_open_clip({name: torch.zeros(()) for name in names}, text_prefix=False)
    ]


def assert_gradients(task, case, run, facts):
    """Exactly what gets a gradient in the original trains here, and gets the same."""
    ours = dict(zip(facts["trainable"], our_names(facts["trainable"]), strict=True))
    trained = task.trainable_parameters()
    assert set(trained) == {ours[name] for name in ours if name not in facts["no_grad_params"]}
    norms = case.tensor(f"out/{run}/grad_norms")
    for name, norm in zip(facts["trainable"], norms.tolist(), strict=True):
        if name in facts["no_grad_params"]:
            assert norm != norm or norm == 0
        else:
            assert trained[ours[name]].grad.norm().item() == pytest.approx(
                norm, rel=1e-3, abs=1e-7
            ), name
    total = torch.stack([p.grad.double().norm() for p in trained.values()]).norm().item()
    assert total == pytest.approx(facts["total_grad_norm"], rel=1e-3)
    for name, gradient in case.under(f"out/{run}/grad/").items():
        torch.testing.assert_close(
            trained[ours[name]].grad, gradient, rtol=1e-3, atol=2e-6, msg=f"{run} {name}"
        )
