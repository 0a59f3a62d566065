"""Private parts of DeepSpeed are where we expect them; if not, this says what of ours breaks."""

from importlib import import_module

import deepspeed
import pytest
import torch
from clim_train.engine import deepspeed_compat
from clim_train.engine.deepspeed_compat import PRIVATE_NAMES, TRIED_VERSIONS, own_part
from tiny_training import register_tiny_towers, tiny_config, tiny_trainer


def resolve(name):
    """What a full name means: a module, or attributes of the longest module in it."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            found = getattr(found, attribute)
        return found
    raise AttributeError(name)


@pytest.mark.parametrize("name", PRIVATE_NAMES)
def test_private_names_are_where_we_use_them(name):
    try:
        resolve(name)
    except AttributeError:
        pytest.fail(
            f"deepspeed {deepspeed.__version__} has no {name} (tried: {', '.join(TRIED_VERSIONS)}): "
            f"without it this breaks: {PRIVATE_NAMES[name]}"
        )


@pytest.fixture
def engine(tmp_path):
    """A DeepSpeed engine at ZeRO stage 3, as our trainer makes it."""
    register_tiny_towers()
    with tiny_trainer(tiny_config(tmp_path / "run", zero_stage=3)) as trainer:
        yield trainer.engine._engine


def test_attributes_of_an_engine_are_those_we_use(engine):
    missing = "this breaks: "
    offload = getattr(engine.optimizer, "parameter_offload", None)
    assert offload is not None, missing + "whole weights for evaluations under ZeRO-3"
    assert hasattr(engine, "enable_backward_allreduce"), missing + "a single rank exchanges nothing"
    assert callable(engine.checkpoint_engine.save), missing + "a full disk on one of several ranks"

    parameters = list(engine.module.parameters())
    for name in ("ds_tensor", "ds_numel", "ds_process_group"):
        assert all(hasattr(p, name) for p in parameters), missing + "the check of weights"
    assert any(hasattr(m, "_original_parameters") for m in engine.module.modules()), (
        missing + "the model's parameters after a run under ZeRO-3"
    )


def test_what_a_rank_holds_of_a_parameter(engine):
    parameter = next(engine.module.parameters())
    assert own_part(parameter) is not parameter
    plain = torch.nn.Parameter(torch.ones(2))
    assert torch.equal(own_part(plain), torch.ones(2))
    assert not own_part(plain).requires_grad


@pytest.mark.parametrize(
    ("elements", "held"), [(1, [1, 0, 0, 0]), (5, [2, 2, 1, 0]), (8, [2, 2, 2, 2])]
)
def test_padding_of_a_partition_is_no_part_of_a_parameter(elements, held, monkeypatch):
    """DeepSpeed never writes the padding: it can hold anything, also NaN."""
    for rank, length in enumerate(held):
        # As one of four ranks has it: the partition in place of the whole parameter.
        parameter = torch.nn.Parameter(torch.empty(0))
        parameter.ds_numel, parameter.ds_process_group = elements, None
        monkeypatch.setattr("torch.distributed.get_rank", lambda group, rank=rank: rank)
        parameter.ds_tensor = torch.full((-(-elements // 4),), torch.nan)
        parameter.ds_tensor[:length] = 1
        assert torch.equal(own_part(parameter), torch.ones(length))


def test_zero3_leaves_nothing_behind(tmp_path):
    from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK

    linear, depth = torch.nn.functional.linear, len(FWD_MODULE_STACK)
    register_tiny_towers()
    trainer = tiny_trainer(tiny_config(tmp_path / "run", zero_stage=3))
    model = trainer.task.model
    trainer.close()

    assert torch.nn.functional.linear is linear
    assert len(FWD_MODULE_STACK) <= depth
    assert not any(hasattr(p, "ds_tensor") for p in model.parameters())
    assert all(type(module._parameters) is dict for module in model.modules())


def test_only_this_module_names_what_is_private():
    """Other modules of the package use DeepSpeed's public functions."""
    from pathlib import Path

    package = Path(deepspeed_compat.__file__).parents[1]
    private = [
        name.rpartition(".")[2] for name in PRIVATE_NAMES if name.rpartition(".")[2] != "main"
    ]
    private += [
        "ds_tensor",
        "ds_numel",
        "ds_process_group",
        "_original_parameters",
        "enable_backward_allreduce",
    ]
    private.remove("save")
    for path in package.rglob("*.py"):
        if path.name != "deepspeed_compat.py":
            used = [name for name in private if name in path.read_text()]
            assert used == [], path
