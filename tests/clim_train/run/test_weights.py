"""Weights that a run starts from."""

import pytest
import torch
from clim_train.run.weights import load_start_weights, save_start_weights

WEIGHTS = {"a": torch.arange(6.0)}


def test_weights_come_back_with_the_frozen_ones_they_belong_to(tmp_path):
    path = tmp_path / "start.safetensors"
    save_start_weights(path, WEIGHTS, "1234")
    assert torch.equal(load_start_weights(path, "1234")["a"], WEIGHTS["a"])
    with pytest.raises(ValueError, match="the frozen weights of the model differ"):
        load_start_weights(path, "5678")


@pytest.mark.parametrize("size", [0, 40])
def test_a_cut_file_is_named(tmp_path, size):
    path = tmp_path / "start.safetensors"
    save_start_weights(path, WEIGHTS, "1234")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(
        ValueError, match=r"start\.safetensors is truncated or damaged .*: put back a copy"
    ):
        load_start_weights(path, "1234")
