"""Training of the heads in two processes, started once, against one process with the same global batch.

The ranks have different numbers of phrases, of images, and in some steps one of them has nothing at all.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from clim_train.metrics import read_metrics
from safetensors.torch import load_file
from tiny_grounding import UNEVEN, Pictures, tiny_config, tiny_trainer


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Folder of what two processes wrote."""
    folder = tmp_path_factory.mktemp("two_ranks_grounding")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators=2", f"--master_port={port}"]
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")}
    environment.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    script = str(Path(__file__).with_name("two_ranks_grounding.py"))
    ran = subprocess.run([*launcher, script, str(folder)], env=environment, capture_output=True, text=True, timeout=600)
    assert (folder / "done.json").exists(), ran.stdout[-3000:] + ran.stderr[-6000:]
    return folder


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
