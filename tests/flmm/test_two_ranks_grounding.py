"""Training of the heads in two processes, started once, against one process with the same global
batch.

The ranks have different numbers of phrases, of images, and in some steps one of them has nothing at
all.
"""

from pathlib import Path

import pytest
import torch
from clim_train import read_metrics
from safetensors.torch import load_file
from tiny_grounding import UNEVEN, Pictures, tiny_config, tiny_trainer
from two_processes import run_two_processes


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Folder of what two processes wrote."""
    return run_two_processes(
        Path(__file__).parents[1] / "workers" / "two_ranks_grounding.py",
        tmp_path_factory.mktemp("two_ranks_grounding"),
    )


@pytest.mark.parametrize(("name", "images"), [("stage2", 2), ("stage3", 2), ("pairs", 4)])
def test_two_ranks_train_as_one_process(launched, tmp_path, name, images):
    """`pairs` was also stopped and resumed."""
    trainer = tiny_trainer(tiny_config(tmp_path / "one", batch_size=images), Pictures(UNEVEN))
    trainer.fit()
    expected, found = read_metrics(tmp_path / "one"), read_metrics(launched / name)
    for figure in ("loss", "sam_loss_dice", "aiou", "accuracy"):
        wanted = [line[figure] for line in expected]
        assert [line[figure] for line in found] == pytest.approx(wanted, rel=1e-3, abs=1e-5), figure
    heads = load_file(launched / name / "model" / "heads.safetensors")
    parameters = trainer.task.trainable_parameters()
    assert set(heads) == set(parameters)
    for key, value in parameters.items():
        torch.testing.assert_close(heads[key], value.detach(), rtol=1e-3, atol=1e-5, msg=key)


def test_what_could_not_be_read_is_counted_over_the_ranks(launched):
    assert read_metrics(launched / "stage2")[-1]["skipped"] == UNEVEN.count(None)
