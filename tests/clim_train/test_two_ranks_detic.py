"""Detic + CLIM on two processes: one divisor for the losses of centres, and a run that ends."""

import json
from pathlib import Path

import torch
from clim_models.detection import open_detector
from clim_train.run.metrics import read_metrics
from detic_training import small_detic_command, write_data
from tiny_detic import centre_losses
from two_processes import run_two_processes


def test_two_ranks_have_the_centre_losses_of_one_and_train_to_the_end(tmp_path):
    data = write_data(tmp_path / "data")
    command = small_detic_command("detic_lvis_clim", data, tmp_path / "run")
    (tmp_path / "command.json").write_text(json.dumps(command))
    script = Path(__file__).parents[1] / "workers" / "two_ranks_detic.py"
    run_two_processes(script, tmp_path)

    whole = centre_losses(slice(0, 2))
    alone = [centre_losses(slice(rank, rank + 1)) for rank in (0, 1)]
    for rank in (0, 1):
        found = torch.load(tmp_path / f"centres{rank}.pt")
        for name, value in whole.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    name = "rpn_loss_cls_neg"
    mean = (alone[0][name] + alone[1][name]) / 2
    assert not torch.allclose(mean, whole[name], rtol=1e-2)

    assert json.loads((tmp_path / "done.json").read_text()) == {"status": 0}
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2]
    assert open_detector(tmp_path / "run").classes.base == (0, 1)
